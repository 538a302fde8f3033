// The start of the page: settings, languages, the adapter, the session, and the first drawing.

import "./app/styles";
import { MantineProvider } from "@mantine/core";
import PocketBase, { BaseAuthStore, LocalAuthStore } from "pocketbase";
import PocketBaseAdapter from "konvert-backend-adapter/pocketbase-adapter";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app/App";
import { loadRuntime } from "./app/runtime";
import { theme } from "./app/theme";
import { currentLanguage, startLanguages } from "./i18n";
import { setBackend } from "./model/backend";
import { startSession } from "./model/session";

async function start(): Promise<void> {
  const [{ backend, demoUser }] = await Promise.all([loadRuntime(), startLanguages()]);
  // A demo user's login lasts as long as the tab, so that two tabs can belong to two users.
  const pocketbase = new PocketBase(backend.url, demoUser ? new BaseAuthStore() : new LocalAuthStore("konvert.login"));
  setBackend(new PocketBaseAdapter(backend, { pocketbase, language: currentLanguage() }));
  const root = document.getElementById("root");
  if (!root) throw new Error("the page has no element with the id root");
  createRoot(root).render(
    <StrictMode>
      <MantineProvider theme={theme} defaultColorScheme="auto">
        <App />
      </MantineProvider>
    </StrictMode>,
  );
  await startSession();
}

void start();
