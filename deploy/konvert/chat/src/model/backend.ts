// The page's adapter.

import PocketBaseAdapter from "konvert-backend-adapter/pocketbase-adapter";
import type { IBackendAdapter } from "konvert-backend-adapter/interface";
import PocketBase, { BaseAuthStore, LocalAuthStore } from "pocketbase";
import { STORED_LOGIN, runtime } from "@/app/runtime";
import { currentLanguage } from "@/i18n";

let current: IBackendAdapter | undefined;

/** Made at the first call, with the settings of `config.json`. */
export const backend = (): IBackendAdapter => (current ??= create());

function create(): IBackendAdapter {
  const { backend: config, demoUser } = runtime();
  // A demo user's login lasts as long as the tab, so that two tabs can belong to two users.
  const pocketbase = new PocketBase(config.url, demoUser ? new BaseAuthStore() : new LocalAuthStore(STORED_LOGIN));
  return new PocketBaseAdapter(config, { pocketbase, language: currentLanguage() });
}
