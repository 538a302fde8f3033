// Texts for errors of the adapter, in the user's language.

import i18next, { type TFunction } from "i18next";
import { BackendError } from "konvert-backend-adapter/errors";
import type { TextKey } from "@/i18n/en";
import { notify } from "./notices";

/** The text of an error code of the adapter. */
export function codeText(code: string, t: TFunction = i18next.t): string {
  const key = `error.${code}` as TextKey;
  return i18next.exists(key) ? t(key) : t("error.unknown");
}

export const problemText = (error: unknown, t: TFunction = i18next.t): string =>
  codeText(error instanceof BackendError ? error.code : "unknown", t);

/** Shows a failed action to the user. A cancelled call is no failure. */
export function report(error: unknown): void {
  if (error instanceof BackendError && error.code === "aborted") return;
  if (!(error instanceof BackendError)) console.error(error);
  notify(problemText(error), true);
}

/** Runs an action; returns whether it succeeded, after showing the failure. */
export async function attempt(action: () => Promise<unknown>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    report(error);
    return false;
  }
}
