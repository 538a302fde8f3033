// The start of the page: settings, languages, and the first drawing. The first bundle has the login only; `app/parts.ts`
// loads the rest.

import "./app/app.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app/App";
import { followColorScheme } from "./app/colorScheme";
import { loadParts } from "./app/parts";
import { loadRuntime, opensWithChat } from "./app/runtime";
import { startLanguages } from "./i18n";
import { useSession } from "./model/session";

async function start(): Promise<void> {
  followColorScheme();
  // With a login, the rest loads at once, beside the settings; without one, after the first drawing of the form.
  if (opensWithChat()) loadParts();
  else useSession.setState({ state: "out" });
  await Promise.all([loadRuntime(), startLanguages()]);
  const root = document.getElementById("root");
  if (!root) throw new Error("the page has no element with the id root");
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}

void start();
