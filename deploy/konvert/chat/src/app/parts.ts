// The parts of the page that are not in the first bundle: the model with the adapter, and the views of the chat with the
// component library.

import { loadRuntime } from "./runtime";

type Model = typeof import("@/model/login");

let model: Promise<Model> | undefined;

/** The model, started at the first call. */
export function loadModel(): Promise<Model> {
  if (!model) {
    model = startModel();
    model.catch(() => (model = undefined)); // no network: the next call tries again
  }
  return model;
}

async function startModel(): Promise<Model> {
  const [loaded] = await Promise.all([import("@/model/login"), loadRuntime()]);
  void loaded.startSession();
  return loaded;
}

export const loadViews = () => import("./Views");

/** Loads both parts before they are needed. A failure shows when a part is used. */
export function loadParts(): void {
  loadModel().catch(() => undefined);
  loadViews().catch(() => undefined);
}
