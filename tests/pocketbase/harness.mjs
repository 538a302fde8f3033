// Starts a real PocketBase with the project's hooks and migrations in a separate folder, and a listener in place of
// the gateway's intake.

import { spawn, spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
/** The gateway's own PocketBase files. */
export const GATEWAY = path.join(ROOT, "deploy/pocketbase");
/** Folders with an application's own pb_hooks and pb_migrations, copied over the gateway's files. */
export const CHAT = path.join(ROOT, "deploy/konvert/pocketbase");
export const KANBAN = path.join(ROOT, "deploy/kanban/pocketbase");
export const ACCOUNTS = path.join(ROOT, "tests/gateway/accounts/pocketbase");
const POCKETBASE = process.env.POCKETBASE || "pocketbase";
export const SECRET = "a secret of the tests, long enough to pass";

const SUPERUSER = ["root@example.com", "root-password"];
export const PASSWORD = "password-123";

/**
 * A port that was not given out before, from a block of ports owned by this process, below the system's ports for
 * outgoing connections. Another program could take one of those between its choice and its use.
 */
export async function freePort() {
  for (;;) {
    if (ports.length === 0) await claimBlock();
    const port = ports.shift();
    const server = await listening(port);
    if (!server) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
const ports = [];

/** Fills `ports`. The first port of the block stays bound, which keeps other test processes off the block. */
async function claimBlock() {
  const [first, size, count] = [10_000, 100, 220];
  for (let step = 0; step < count; step++) {
    const begin = first + ((process.pid + step) % count) * size;
    const claim = await listening(begin);
    if (!claim) continue;
    claim.unref();
    for (let port = begin + 1; port < begin + size; port++) ports.push(port);
    return;
  }
  throw new Error("every block of ports is claimed");
}

/** A server bound to the port, or null if the port is taken. */
function listening(port) {
  const server = net.createServer();
  return new Promise((resolve) => {
    server
      .once("listening", () => resolve(server))
      .once("error", () => resolve(null))
      .listen(port, "127.0.0.1");
  });
}

/** Waits until `condition` returns a truthy value, and returns this value. Asks every `pause` ms. */
export async function until(condition, what, ms = 5000, pause = 5) {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

export function sign(timestamp, method, target, body, secret = SECRET) {
  return createHmac("sha256", secret).update(`${timestamp}\n${method}\n${target}\n${body}`).digest("hex");
}

// ---- the intake

/** A listener in the gateway's place. `mode`: "answer" (202), "refuse" (500) or "hang". */
export class Intake {
  mode = "answer";
  posts = []; // {events, signed} of every POST, in the order of arrival
  #server;

  static async start() {
    const intake = new Intake();
    intake.#server = http.createServer((request, response) => intake.#receive(request, response));
    await new Promise((resolve) => intake.#server.listen(0, "127.0.0.1", resolve));
    intake.url = `http://127.0.0.1:${intake.#server.address().port}`;
    return intake;
  }

  async #receive(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const timestamp = request.headers["x-gateway-timestamp"];
    const signed =
      request.headers["x-gateway-signature"] === sign(timestamp, request.method, request.url, body) &&
      Math.abs(Date.now() / 1000 - timestamp) < 300;
    const { events } = JSON.parse(body);
    this.posts.push({ events, signed, target: request.url });
    if (this.mode === "hang") return;
    response.writeHead(this.mode === "refuse" ? 500 : 202, { "content-type": "application/json" });
    response.end(JSON.stringify({ accepted: events.length }));
  }

  get events() {
    return this.posts.flatMap((post) => post.events);
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

// ---- PocketBase

/**
 * A data folder with the files of the gateway and an application, or an empty folder without an application;
 * `prepare(folder)` may change the files before the start.
 */
export function install(prepare = () => {}, application = CHAT) {
  const folder = mkdtempSync(path.join(tmpdir(), "konvert-pocketbase-"));
  for (const from of application ? [GATEWAY, application] : []) {
    for (const part of ["pb_hooks", "pb_migrations"]) {
      cpSync(path.join(from, part), path.join(folder, part), { recursive: true });
    }
  }
  prepare(folder);
  return folder;
}

function flags(folder) {
  return [
    ...["--dir", path.join(folder, "pb_data")],
    ...["--hooksDir", path.join(folder, "pb_hooks")],
    ...["--migrationsDir", path.join(folder, "pb_migrations")],
    "--automigrate=false",
  ];
}

/** Runs a command to its end: {status, output}. */
export function run(folder, args, env = {}, binary = POCKETBASE) {
  const ended = spawnSync(binary, [...args, ...flags(folder)], {
    env: { ...process.env, GATEWAY_SECRET: SECRET, ...env },
    encoding: "utf8",
    input: "y\n", // migrate down asks
    timeout: 60_000,
  });
  if (ended.error) throw ended.error;
  return { status: ended.status, output: ended.stdout + ended.stderr };
}

export class PocketBase {
  static async start({
    gatewayUrl = "http://127.0.0.1:1",
    application,
    prepare,
    folder = install(prepare, application),
    arguments: more = [],
    binary,
  } = {}) {
    const pb = new PocketBase();
    pb.folder = folder;
    const created = run(folder, ["superuser", "upsert", ...SUPERUSER], {}, binary);
    if (created.status !== 0) throw new Error(`superuser: ${created.output}`);

    const port = await freePort();
    pb.url = `http://127.0.0.1:${port}`;
    pb.output = "";
    pb.process = spawn(binary ?? POCKETBASE, ["serve", "--http", `127.0.0.1:${port}`, ...flags(folder), ...more], {
      env: { ...process.env, GATEWAY_SECRET: SECRET, GATEWAY_URL: gatewayUrl },
    });
    for (const stream of [pb.process.stdout, pb.process.stderr]) {
      stream.on("data", (chunk) => (pb.output += chunk));
    }
    try {
      await until(
        () => {
          if (pb.process.exitCode !== null) throw new Error(`PocketBase ended: ${pb.output}`);
          return fetch(`${pb.url}/api/health`).then(
            (r) => r.ok,
            () => false,
          );
        },
        "PocketBase to listen",
        60_000,
      );
      pb.root = await pb.login(...SUPERUSER, "_superusers");
    } catch (err) {
      await pb.stop(); // a running child would keep the test's process from ending
      throw err;
    }
    return pb;
  }

  /**
   * Stops the process, and removes the folder unless `keep`. A process that does not end prints its goroutines, an
   * error.
   */
  async stop({ keep = false } = {}) {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      const ended = new Promise((resolve) => this.process.once("exit", (...how) => resolve(how)));
      this.process.kill();
      const stuck = setTimeout(() => this.process.kill("SIGQUIT"), 30_000);
      const [, signal] = await ended;
      clearTimeout(stuck);
      if (signal === "SIGQUIT" || this.output.includes("SIGQUIT: quit"))
        throw new Error(`PocketBase did not end: ${this.output}`);
    }
    if (!keep) rmSync(this.folder, { recursive: true, force: true });
  }

  /** One call: {status, body}. `as` is the result of login or user; anonymous without it. */
  async call(method, target, body, as) {
    const response = await fetch(this.url + target, {
      method,
      headers: { "content-type": "application/json", ...(as && { authorization: as.token }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    return { status: response.status, body: text ? JSON.parse(text) : null };
  }

  async #must(method, target, body, as) {
    const answer = await this.call(method, target, body, as);
    if (answer.status >= 300) throw new Error(`${method} ${target}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  async login(email, password, collection = "users") {
    const target = `/api/collections/${collection}/auth-with-password`;
    const { token, record } = await this.#must("POST", target, { identity: email, password });
    return { token, id: record.id, email };
  }

  /** Makes a user and logs in. */
  async user(name) {
    const email = `${name}@example.com`;
    await this.#must("POST", "/api/collections/users/records", {
      email,
      name,
      password: PASSWORD,
      passwordConfirm: PASSWORD,
    });
    return this.login(email, PASSWORD);
  }

  create(collection, data, as = this.root) {
    return this.#must("POST", `/api/collections/${collection}/records`, data, as);
  }

  update(collection, id, data, as = this.root) {
    return this.#must("PATCH", `/api/collections/${collection}/records/${id}`, data, as);
  }

  remove(collection, id, as = this.root) {
    return this.#must("DELETE", `/api/collections/${collection}/records/${id}`, undefined, as);
  }

  list(collection, as = this.root, query = "") {
    return this.#must("GET", `/api/collections/${collection}/records?perPage=500&${query}`, undefined, as);
  }

  /** A batch of [method, collection, data or id]. */
  batch(requests, as = this.root) {
    return this.call(
      "POST",
      "/api/batch",
      {
        requests: requests.map(([method, collection, data]) => {
          const url = `/api/collections/${collection}/records`;
          return method === "POST" ? { method, url, body: data } : { method, url: `${url}/${data}` };
        }),
      },
      as,
    );
  }

  /** A call as the gateway makes it. */
  async gateway(method, target, body = "", { secret, timestamp = Math.floor(Date.now() / 1000), headers } = {}) {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(this.url + target, {
      method,
      headers: headers ?? {
        "x-gateway-timestamp": String(timestamp),
        "x-gateway-signature": sign(timestamp, method, target, text, secret),
      },
      body: method === "GET" ? undefined : text,
    });
    return { status: response.status, body: await response.json() };
  }

  /** The keys route's answer about logged-in users. */
  async accounts(...users) {
    const names = users.map(({ token }) => {
      const { collectionId, id } = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
      return `${collectionId}/${id}`;
    });
    return (await this.gateway("POST", "/api/gateway/keys", { users: names })).body.keys;
  }

  async events(after = 0, limit = 1000) {
    return (await this.gateway("GET", `/api/gateway/events?after=${after}&limit=${limit}`)).body;
  }
}
