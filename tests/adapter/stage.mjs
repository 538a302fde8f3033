// A PocketBase with the chat's files, a gateway beside PocketBase, and adapters for users.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { Lab, freePort, until } from "../node/harness.mjs";
import { PASSWORD } from "../pocketbase/harness.mjs";

const packages = createRequire(new URL("../../deploy/konvert/backend-adapter/package.json", import.meta.url));
export const { WebSocket } = packages("ws");
globalThis.EventSource ??= packages("eventsource").EventSource; // Node.js has none; PocketBase's client needs it
export const PocketBaseClient = packages("pocketbase").default ?? packages("pocketbase");

const dist = (name) => import(new URL(`../../deploy/konvert/backend-adapter/dist/${name}.js`, import.meta.url));
export const { PocketBaseAdapter, createRealtime, readConfig, websocketUrl } = await dist("index");
export { PASSWORD, until };
export const readme = readFileSync(new URL("../../deploy/konvert/backend-adapter/README.md", import.meta.url), "utf8");

/** localStorage for one device. */
export class Storage {
  #values = new Map();
  getItem(key) {
    return this.#values.get(key) ?? null;
  }
  setItem(key, value) {
    this.#values.set(key, value);
  }
  removeItem(key) {
    this.#values.delete(key);
  }
}

export class Stage {
  lab = new Lab();
  #counter = 0;

  static async start() {
    const stage = new Stage();
    try {
      stage.port = await freePort();
      stage.pocketbase = await stage.lab.pocketbase(`http://127.0.0.1:${stage.port}`);
      stage.gateway = await stage.startGateway();
    } catch (error) {
      await stage.lab.stop();
      throw error;
    }
    return stage;
  }

  startGateway() {
    return this.lab.gateway("gateway", { port: this.port, pocketbase: this.pocketbase });
  }

  stop() {
    return this.lab.stop();
  }

  config(changes = {}) {
    return {
      type: "pocketbase",
      url: this.pocketbase.url,
      gatewayUrl: `http://127.0.0.1:${this.port}`,
      transport: "gateway",
      features: { realtime: true, e2ee: true, fileUpload: true, voiceVideo: true },
      ...changes,
    };
  }

  /** An adapter of a device of its own, without a login. */
  adapter({ config = {}, ...options } = {}) {
    const adapter = new PocketBaseAdapter(this.config(config), {
      pocketbase: new PocketBaseClient(config.url ?? this.pocketbase.url, new MemoryAuth()),
      storage: new Storage(),
      websocket: WebSocket,
      language: "en",
      ...options,
    });
    this.lab.defer(async () => adapter.close());
    return adapter;
  }

  name(prefix) {
    this.#counter += 1;
    return `${prefix}_${this.#counter}`;
  }

  /** A new user with an adapter: {adapter, id, email, username}. */
  async user(prefix, options) {
    const username = this.name(prefix);
    const email = `${username}@example.com`;
    const adapter = this.adapter(options);
    const { user } = await adapter.signup(email, PASSWORD, username);
    return { adapter, id: user.id, email, username };
  }

  /** Gives a user a role, as an operator does. */
  async promote(userId, role) {
    await this.pocketbase.update("users", userId, { role });
  }
}

const { BaseAuthStore } = packages("pocketbase");
class MemoryAuth extends BaseAuthStore {}

/** Collects the calls of a callback, and waits for one that fits. */
export function collector() {
  const seen = [];
  const collect = (...values) => void seen.push(values.length > 1 ? values : values[0]);
  collect.seen = seen;
  collect.until = (fits, what, milliseconds = 20_000) => until(() => seen.find(fits), what, milliseconds);
  return collect;
}
