// The old backend as a whole: PostgreSQL, PostgREST and one HTTP server with Supabase's paths, and adapters of users.

import { createServer } from "node:http";
import { Readable } from "node:stream";
import { Lab, freePort } from "../../node/harness.mjs";
import { Storage } from "../stage.mjs";
import { Edge } from "./edge.mjs";
import { Auth, Files, Reply } from "./gotrue.mjs";
import { Database } from "./postgres.mjs";

const { SupabaseAdapter } = await import(
  new URL("../../../deploy/konvert/backend-adapter/dist/supabase-adapter.js", import.meta.url)
);

export const FUNCTION = "make-server-b0f1e6d5";
export const PASSWORD = "correct horse";
/** Far shorter than the old chat's, so that the tests end soon. */
const PERIODS = { messages: 150, rooms: 200, notifications: 200, polls: 200, activity: 5000 };
const ACHIEVEMENTS = [
  {
    id: "first_message",
    name: "First word",
    description: "Send a message",
    icon: "✍️",
    rarity: "common",
    max_progress: 1,
  },
];

export class Stage {
  lab = new Lab();
  password = PASSWORD;
  favorites = "⭐ Избранное";
  friendRequest = /хочет добавить вас в друзья$/;
  /** Answers of the edge function that a test replaces: a function of the request, or null. */
  intercept = null;
  #counter = 0;

  /** `functionUrl`: address of another edge function, instead of the routes here. */
  static async start({ functionUrl, port } = {}) {
    const stage = new Stage();
    try {
      stage.database = await Database.start(stage.lab);
      stage.functionUrl = functionUrl;
      await stage.#listen(port ?? (await freePort()));
      await stage.user("first"); // the first user is an administrator with a name of the backend's choice
    } catch (error) {
      await stage.lab.stop();
      throw error;
    }
    return stage;
  }

  async #listen(port) {
    this.url = `http://127.0.0.1:${port}`;
    this.auth = new Auth(this.database);
    this.files = new Files();
    this.files.origin = () => this.url;
    this.edge = new Edge({ database: this.database, auth: this.auth, files: this.files });
    this.server = createServer((request, response) => {
      this.#answer(request).then(
        ({ status = 200, body, raw, type = "application/json" }) => {
          response.writeHead(status, {
            "Content-Type": body === undefined && !raw ? "text/plain" : type,
            "Access-Control-Allow-Origin": "*",
          });
          response.end(raw ?? (body === undefined ? "404 Not Found" : JSON.stringify(body)));
        },
        (error) => {
          if (error === CUT) return request.destroy();
          response.writeHead(error instanceof Reply ? error.status : 500, { "Content-Type": "application/json" });
          response.end(JSON.stringify(error instanceof Reply ? error.body : { error: error.message }));
        },
      );
    });
    await new Promise((resolve) => this.server.listen(port, "127.0.0.1", resolve));
    this.lab.defer(async () => {
      this.server.closeAllConnections();
      this.server.close();
    });
  }

  async #answer(request) {
    const url = new URL(request.url, this.url);
    const bytes = Buffer.concat(await Readable.from(request).toArray());
    const [, service, , ...rest] = url.pathname.split("/");
    const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
    const call = { method: request.method, query: url.searchParams, token };
    if (service === "rest") return this.#forward(`${this.database.url}/${rest.join("/")}${url.search}`, request, bytes);
    if (service === "auth")
      return {
        body: await this.auth.answer(request.method, `/${rest.join("/")}`, url.searchParams, json(bytes), token),
      };
    if (service === "storage") return this.#storage(request, rest, url.searchParams, bytes);
    if (service !== "functions" || rest[0] !== FUNCTION) return { status: 404, body: undefined };
    const path = `/${rest.slice(1).join("/")}`;
    const replaced = await this.intercept?.({ method: request.method, path, bytes });
    if (replaced) return replaced;
    if (this.functionUrl) return this.#forward(`${this.functionUrl}/${FUNCTION}${path}${url.search}`, request, bytes);
    return this.edge.answer({ ...call, path, body: await content(request, bytes) });
  }

  async #forward(target, request, bytes) {
    const { host: _host, connection: _connection, "content-length": _length, ...headers } = request.headers;
    const reply = await fetch(target, {
      method: request.method,
      headers,
      ...(bytes.length > 0 ? { body: bytes } : {}),
    });
    return {
      status: reply.status,
      raw: Buffer.from(await reply.arrayBuffer()),
      type: reply.headers.get("content-type") ?? "text/plain",
    };
  }

  async #storage(request, [kind, ...rest], query, bytes) {
    if (kind === "bucket") return { body: request.method === "GET" ? [] : { name: "made" } };
    if (rest[0] === "sign") {
      const path = rest.slice(1).join("/");
      if (request.method === "POST") return { body: { signedURL: this.files.sign(path) } };
      const file = this.files.read(path, query.get("token"));
      return { raw: file.content, type: file.type };
    }
    if (request.method === "POST") {
      const form = await content(request, bytes);
      const file = form instanceof FormData ? [...form.values()].find((value) => value instanceof Blob) : null;
      const [data, type] = file
        ? [Buffer.from(await file.arrayBuffer()), file.type]
        : [bytes, request.headers["content-type"]];
      this.files.store(rest.join("/"), data, type);
      return { body: { Key: rest.join("/") } };
    }
    for (const path of json(bytes).prefixes ?? []) this.files.remove(`${rest[0]}/${path}`);
    return { body: [] };
  }

  adapter({ config = {}, ...options } = {}) {
    const features = { realtime: true, e2ee: true, fileUpload: true, voiceVideo: true };
    const settings = {
      type: "supabase",
      url: this.url,
      apiKey: this.database.anonKey,
      transport: "auto",
      features,
      ...config,
    };
    const adapter = new SupabaseAdapter(settings, {
      storage: new Storage(),
      periods: PERIODS,
      achievements: ACHIEVEMENTS,
      ...options,
    });
    this.lab.defer(async () => adapter.close());
    return adapter;
  }

  /** A new user with an adapter: {adapter, id, email, username}. */
  async user(prefix, options) {
    this.#counter += 1;
    const username = `${prefix}_${this.#counter}`;
    const email = `${username}@example.com`;
    const adapter = this.adapter(options);
    const { user } = await adapter.signup(email, PASSWORD, username);
    return { adapter, id: user.id, email, username };
  }

  async promote(userId, role) {
    await this.change(`user:${userId}`, { role });
  }

  /** Changes fields of a row behind the function's back. */
  async change(key, fields) {
    await this.database.set(key, { ...(await this.database.get(key)), ...fields });
  }

  stop() {
    return this.lab.stop();
  }
}

/** Thrown by an interceptor: the connection ends without an answer. */
export const CUT = Symbol("cut");

async function content(request, bytes) {
  const type = request.headers["content-type"] ?? "";
  if (type.startsWith("multipart/form-data"))
    return new Response(bytes, { headers: { "Content-Type": type } }).formData();
  return json(bytes);
}

function json(bytes) {
  try {
    return JSON.parse(bytes.toString() || "{}");
  } catch {
    return {};
  }
}
