// The page's adapter.

import type { IBackendAdapter } from "konvert-backend-adapter/interface";

let current: IBackendAdapter | undefined;

export function setBackend(adapter: IBackendAdapter): void {
  current = adapter;
}

export function backend(): IBackendAdapter {
  if (!current) throw new Error("backend() is called before the adapter was made");
  return current;
}
