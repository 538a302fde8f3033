// Run-time settings: `config.json` beside the page, if present, so that a built chat works on any server. Without the
// file, PocketBase and the gateway are expected behind the page's own origin.

import { getBackendConfig, websocketUrl } from "konvert-backend-adapter/config";
import type { BackendConfig, RealtimeTransport } from "konvert-backend-adapter/interface";

export interface DemoUser {
  id: string;
  name: string;
  email: string;
  password: string;
}

interface ConfigFile {
  pocketbase?: string;
  websocket?: string;
  /** The gateway listens on every address: the host of the page's URL is the gateway's host. */
  anyHost?: boolean;
  transport?: RealtimeTransport;
  e2ee?: boolean;
  users?: DemoUser[];
  room?: string;
}

export interface Runtime {
  backend: BackendConfig;
  /** Users of a demo, with public passwords. */
  users: readonly DemoUser[];
  /** First room of a demo. */
  room: string | null;
  /** Demo user of the tab: `?user=alice`. */
  demoUser: DemoUser | null;
}

/** Name of the login in localStorage. */
export const STORED_LOGIN = "konvert.login";
const address = new URLSearchParams(location.search);

/** Whether the page opens with the chat instead of the login: after an earlier login, or for a demo user. */
export const opensWithChat = (): boolean => address.has("user") || localStorage.getItem(STORED_LOGIN) !== null;

let loaded: Runtime | undefined;
let loading: Promise<Runtime> | undefined;

export function runtime(): Runtime {
  if (!loaded) throw new Error("runtime() is called before loadRuntime()");
  return loaded;
}

/** Reads the settings once, for any number of calls. */
export const loadRuntime = (): Promise<Runtime> => (loading ??= load());

async function load(): Promise<Runtime> {
  const file = await readFile();
  const backend = { ...getBackendConfig() };
  if (file.pocketbase) backend.url = new URL(file.pocketbase, location.href).href.replace(/\/$/, "");
  if (file.websocket) {
    const url = new URL(websocketUrl(new URL(file.websocket, location.href).href));
    if (file.anyHost) url.hostname = location.hostname;
    backend.gatewayUrl = url.href;
  }
  const transport = address.get("transport") ?? file.transport;
  if (transport === "gateway" || transport === "pocketbase" || transport === "auto") backend.transport = transport;
  if (file.e2ee !== undefined) backend.features = { ...backend.features, e2ee: file.e2ee };
  const users = file.users ?? [];
  const wanted = address.get("user")?.toLowerCase();
  const demoUser = users.find(({ name }) => name.toLowerCase() === wanted) ?? null;
  return (loaded = { backend, users, room: file.room ?? null, demoUser });
}

async function readFile(): Promise<ConfigFile> {
  try {
    const reply = await fetch("./config.json", { credentials: "same-origin" });
    if (!reply.ok || !reply.headers.get("content-type")?.includes("json")) return {};
    return (await reply.json()) as ConfigFile;
  } catch {
    return {}; // no such file: the defaults hold
  }
}
