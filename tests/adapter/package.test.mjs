// The package without a server: configuration, errors, the README's example of an adapter of one's own.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readConfig, readme, websocketUrl } from "./stage.mjs";

const folder = new URL("../../deploy/konvert/backend-adapter/", import.meta.url);
const { CustomAdapter } = await import(new URL("dist/examples/custom-adapter.js", folder));
const { toBackendError, BackendError } = await import(new URL("dist/errors.js", folder));

test("the configuration of an environment", () => {
  const config = readConfig({
    VITE_BACKEND_TYPE: "pocketbase",
    VITE_POCKETBASE_URL: "https://pb.example.org",
    VITE_GATEWAY_URL: "https://chat.example.org",
    VITE_REALTIME_TRANSPORT: "gateway",
    VITE_E2EE_ENABLED: "false",
  });
  assert.deepEqual(config, {
    type: "pocketbase",
    url: "https://pb.example.org",
    gatewayUrl: "wss://chat.example.org/connection/websocket",
    transport: "gateway",
    features: { realtime: true, e2ee: false, fileUpload: true, voiceVideo: true },
  });
  assert.equal(readConfig({}).transport, "auto");
});

test("a wrong configuration is an error with the variable and the possible values", () => {
  assert.throws(
    () => readConfig({ VITE_BACKEND_TYPE: "pocketbas" }),
    /VITE_BACKEND_TYPE is "pocketbas"; possible values: pocketbase/,
  );
  assert.throws(() => readConfig({ VITE_REALTIME_TRANSPORT: "sse" }), /VITE_REALTIME_TRANSPORT/);
  assert.throws(() => readConfig({ VITE_BACKEND_TYPE: "supabase" }), /VITE_SUPABASE_URL is missing/);
});

test("addresses of the gateway", () => {
  const full = "wss://chat.example.org/realtime/connection/websocket";
  for (const address of [full, "https://chat.example.org/realtime", "https://chat.example.org/realtime/"]) {
    assert.equal(websocketUrl(address), full);
  }
  assert.equal(websocketUrl("http://127.0.0.1:8000"), "ws://127.0.0.1:8000/connection/websocket");
});

test("errors of PocketBase's client by kind", () => {
  const answer = (status, response = {}) => Object.assign(new Error("x"), { status, response, isAbort: false });
  const kinds = [
    [answer(0), "network"],
    [answer(401), "unauthorized"],
    [answer(403), "forbidden"],
    [answer(403, { code: "banned", until: "2026-12-01 00:00:00.000Z" }), "banned"],
    [answer(403, { code: "muted" }), "muted"],
    [answer(404), "not_found"],
    [answer(400, { data: { email: { code: "validation_not_unique", message: "Value must be unique." } } }), "conflict"],
    [answer(400, { data: { email: { code: "validation_required", message: "Missing." } } }), "invalid"],
    [answer(413), "too_large"],
    [answer(429), "rate_limited"],
    [answer(502), "server"],
    [Object.assign(new Error("x"), { status: 0, isAbort: true }), "aborted"],
    ["a text", "server"],
  ];
  for (const [error, code] of kinds) {
    const typed = toBackendError(error);
    assert.ok(typed instanceof BackendError && typed.code === code && typed.action, `${code}: ${typed.code}`);
    assert.equal(typed.temporary, ["network", "server", "rate_limited"].includes(code));
  }
  assert.equal(toBackendError(kinds[3][0]).until, "2026-12-01T00:00:00.000Z");
});

test("the README's adapter of one's own is the compiled example, and changes only its own methods", async () => {
  const source = readFileSync(new URL("examples/custom-adapter.ts", folder), "utf8");
  assert.ok(readme.includes(source.replace("../index.js", "konvert-backend-adapter")));
  const lines = [];
  const bans = [];
  const base = {
    banUser: async (...values) => void bans.push(values),
    getRooms: async () => ({ rooms: [] }),
    close() {},
  };
  const adapter = new CustomAdapter(base, (line) => lines.push(line));
  await adapter.banUser("boris", 2);
  assert.deepEqual([bans[0].slice(0, 2), lines], [["boris", 2], ["banned boris for 2 hours"]]);
  assert.deepEqual(await adapter.getRooms(), { rooms: [] });
  await assert.rejects(adapter.createPoll(), { code: "unsupported", method: "createPoll" });
});
