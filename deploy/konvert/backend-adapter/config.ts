// Settings of the frontend, from Vite's environment (`.env`). Vite replaces each `import.meta.env.NAME` at build time,
// so the names are written out.

import type { BackendConfig, BackendType, RealtimeTransport } from "./interface.js";

interface ViteEnvironment {
  readonly [name: string]: string | boolean | undefined;
}

declare global {
  interface ImportMeta {
    readonly env?: ViteEnvironment;
  }
}

const env: ViteEnvironment = {
  VITE_BACKEND_TYPE: import.meta.env?.VITE_BACKEND_TYPE,
  VITE_POCKETBASE_URL: import.meta.env?.VITE_POCKETBASE_URL,
  VITE_GATEWAY_URL: import.meta.env?.VITE_GATEWAY_URL,
  VITE_SUPABASE_URL: import.meta.env?.VITE_SUPABASE_URL,
  VITE_SUPABASE_ANON_KEY: import.meta.env?.VITE_SUPABASE_ANON_KEY,
  VITE_E2EE_ENABLED: import.meta.env?.VITE_E2EE_ENABLED,
  VITE_REALTIME_ENABLED: import.meta.env?.VITE_REALTIME_ENABLED,
  VITE_REALTIME_TRANSPORT: import.meta.env?.VITE_REALTIME_TRANSPORT,
};

const BACKENDS: readonly BackendType[] = ["pocketbase", "supabase", "firebase", "custom"];
const TRANSPORTS: readonly RealtimeTransport[] = ["auto", "gateway", "pocketbase"];

/**
 * The configuration that an environment describes. An unknown backend or transport is an error, since a silent default
 * would send users to the wrong server.
 */
export function readConfig(from: ViteEnvironment): BackendConfig {
  const type = oneOf("VITE_BACKEND_TYPE", text(from, "VITE_BACKEND_TYPE") || "pocketbase", BACKENDS);
  const transport = oneOf("VITE_REALTIME_TRANSPORT", text(from, "VITE_REALTIME_TRANSPORT") || "auto", TRANSPORTS);
  const features = {
    realtime: flag(from, "VITE_REALTIME_ENABLED"),
    e2ee: flag(from, "VITE_E2EE_ENABLED"),
    fileUpload: true,
    voiceVideo: true,
  };
  if (type === "supabase") {
    const url = text(from, "VITE_SUPABASE_URL");
    if (!url) throw new Error("VITE_SUPABASE_URL is missing: set it to the project's URL in .env.");
    return { type, url, apiKey: text(from, "VITE_SUPABASE_ANON_KEY"), transport, features };
  }
  // Without an address, PocketBase and the gateway are expected behind the page's own origin.
  const url = text(from, "VITE_POCKETBASE_URL") || origin("http://127.0.0.1:8090");
  const gatewayUrl = text(from, "VITE_GATEWAY_URL") || websocketUrl(origin("http://127.0.0.1:8000"));
  return { type, url, gatewayUrl: websocketUrl(gatewayUrl), transport, features };
}

/** The address of the gateway's WebSocket, from any of its addresses: `https://chat.example.org` is enough. */
export function websocketUrl(address: string): string {
  const url = new URL(address);
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  if (!url.pathname.endsWith("/connection/websocket")) {
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/connection/websocket`;
  }
  return url.toString();
}

/** The configuration of this build. */
export function getBackendConfig(): BackendConfig {
  return readConfig(env);
}

/** The backend of this build: `VITE_BACKEND_TYPE`. */
export const BACKEND_TYPE: BackendType = oneOf(
  "VITE_BACKEND_TYPE",
  text(env, "VITE_BACKEND_TYPE") || "pocketbase",
  BACKENDS,
);

/** Feature flags of this build; a flag is on unless its variable is "false". */
export const FEATURES = {
  E2EE_ENABLED: flag(env, "VITE_E2EE_ENABLED"),
  REALTIME_ENABLED: flag(env, "VITE_REALTIME_ENABLED"),
} as const;

function text(from: ViteEnvironment, name: string): string {
  const value = from[name];
  return typeof value === "string" ? value.trim() : "";
}

function flag(from: ViteEnvironment, name: string): boolean {
  const value = from[name];
  return value !== false && !["false", "0", "off"].includes(String(value).toLowerCase());
}

function oneOf<T extends string>(name: string, value: string, values: readonly T[]): T {
  const found = values.find((candidate) => candidate === value);
  if (!found) throw new Error(`${name} is "${value}"; possible values: ${values.join(", ")}.`);
  return found;
}

function origin(otherwise: string): string {
  const page = (globalThis as { location?: { origin?: string } }).location?.origin;
  return page && page !== "null" ? page : otherwise;
}
