// Starts the tests' servers on free ports with data of their own, and stops them by process id. Servers that already
// run on the machine are neither used nor touched. PocketBase comes from the harness of ../pocketbase.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { PocketBase, SECRET, freePort, until } from "../pocketbase/harness.mjs";

export { freePort, until };
export const root = fileURLToPath(new URL("../..", import.meta.url));
const target = resolve(process.env.CARGO_TARGET_DIR ?? join(root, "target"));
export const gatewayBinary = process.env.KONVERT_GATEWAY ?? join(target, "release/konvert-gateway");

/** The next `event` of an emitter for which `fits` is true; rejects after the deadline. */
export function next(emitter, event, fits = () => true, milliseconds = 10_000) {
  return new Promise((fulfil, reject) => {
    const stop = () => {
      clearTimeout(timer);
      emitter.off(event, listener);
    };
    const listener = (value) => {
      if (!fits(value)) return;
      stop();
      fulfil(value);
    };
    const timer = setTimeout(() => {
      stop();
      reject(new Error(`no fitting "${event}" within ${milliseconds} ms`));
    }, milliseconds);
    emitter.on(event, listener);
  });
}

/** A child process that writes into a log. */
export class Server {
  /** `owner`: {uid, gid} of the process, for programs that refuse to run as root. */
  constructor(name, command, args, { env = {}, folder, stdout, owner } = {}) {
    this.name = name;
    this.log = join(folder, `${name}.log`);
    const log = openSync(this.log, "a");
    this.process = spawn(command, args, {
      cwd: folder,
      env: { ...process.env, ...env },
      stdio: ["ignore", stdout ?? log, log],
      ...owner,
    });
    closeSync(log);
    this.ended = new Promise((done) => {
      this.process.once("exit", (code, signal) => done(`exit ${signal ?? code}`));
      this.process.once("error", (error) => done(error.message));
    }).then((how) => (this.end = how));
  }

  /** Waits until `check` returns a truthy value and returns this value; fails at once if the process ends. */
  ready(check, milliseconds = 60_000) {
    const settled = async () => {
      if (this.end) throw new Error(`${this.name} ended: ${this.end}`);
      return check();
    };
    return until(settled, `${this.name} to be ready`, milliseconds);
  }

  /** Stops the process for a while; resolves once no thread runs. On a busy machine, threads run on after the signal. */
  async freeze() {
    this.process.kill("SIGSTOP");
    const tasks = `/proc/${this.process.pid}/task`;
    const state = (task) => readFileSync(`${tasks}/${task}/stat`, "utf8").replace(/^.*\) /s, "")[0];
    await until(() => readdirSync(tasks).every((task) => state(task) === "T"), `${this.name} to stop`);
  }

  async stop(signal = "SIGTERM") {
    if (this.end) return;
    this.process.kill(signal);
    const patience = setTimeout(() => this.process.kill("SIGKILL"), 15_000);
    await this.ended;
    clearTimeout(patience);
  }

  get output() {
    return readFileSync(this.log, "utf8");
  }
}

/** The servers of one test file, and the clean-up after the test. */
export class Lab {
  folder = mkdtempSync(join(tmpdir(), "konvert-test-"));
  #servers = [];
  #undo = [];

  /** Starts a program in the lab's folder; the program is stopped with the lab. */
  start(name, command, args, options) {
    const server = new Server(name, command, args, { folder: this.folder, ...options });
    this.#servers.push(server);
    this.defer(() => server.stop());
    return server;
  }

  /** Runs the async `action` when the lab stops; the last action runs first. */
  defer(action) {
    this.#undo.push(action);
  }

  async stop() {
    const results = [];
    while (this.#undo.length)
      results.push(
        await this.#undo
          .pop()()
          .catch((error) => error),
      );
    rmSync(this.folder, { recursive: true, force: true });
    const failed = results.filter((result) => result instanceof Error);
    if (failed.length) throw new AggregateError(failed, failed.map(String).join("; "));
  }

  /**
   * Runs deploy/quickstart.sh with the plain page and with data in the lab's folder; returns the addresses and logins
   * that it prints.
   */
  async quickstart() {
    const options = [
      "--headless",
      "--plain",
      "--port-gateway=0",
      "--port-pocketbase=0",
      `--data=${join(this.folder, "data")}`,
    ];
    const env = { KONVERT_GATEWAY: gatewayBinary };
    const server = this.start("quickstart", join(root, "deploy/quickstart.sh"), options, { env, stdout: "pipe" });
    let line = "";
    server.process.stdout.on("data", (chunk) => (line += chunk));
    await server.ready(() => line.endsWith("\n"), 60_000);
    return JSON.parse(line);
  }

  /** Makes a test's body print the last lines of the servers' logs if it fails. */
  explained(body) {
    return async (...args) => {
      try {
        return await body(...args);
      } catch (error) {
        for (const { name, output } of this.#servers) {
          console.error(`--- ${name} said last:\n${output.split("\n").slice(-30).join("\n")}`);
        }
        throw error;
      }
    };
  }

  async redis() {
    const port = await freePort();
    const args = `--port ${port} --bind 127.0.0.1 --appendonly no --dir ${this.folder} --save`.split(" ");
    const server = this.start("redis", "redis-server", [...args, ""]);
    await server.ready(() => accepts(port));
    return `redis://127.0.0.1:${port}`;
  }

  /**
   * PocketBase with the gateway's hooks and an application's files, by default the chat's; the hooks post to
   * `gatewayUrl`.
   */
  async pocketbase(gatewayUrl, application) {
    const pocketbase = await PocketBase.start({ gatewayUrl, application });
    pocketbase.name = "pocketbase";
    this.#servers.push(pocketbase);
    this.defer(() => pocketbase.stop());
    return pocketbase;
  }

  /**
   * Starts a gateway and waits until it is ready; with Redis if there is a `redisUrl`, and with further settings in
   * `env`.
   */
  async gateway(name, { port, pocketbase, redisUrl, env: settings, program = gatewayBinary }) {
    const adminPort = await freePort();
    const args = ["serve", `--listen=127.0.0.1:${port}`, `--admin-listen=127.0.0.1:${adminPort}`];
    const env = { GATEWAY_SECRET: SECRET, GATEWAY_POCKETBASE_URL: pocketbase.url, ...settings };
    if (redisUrl) env.GATEWAY_REDIS_URL = redisUrl;
    const server = this.start(name, program, args, { env });
    server.port = port;
    server.websocket = websocketOn(port);
    server.admin = `http://127.0.0.1:${adminPort}`;
    /** The value of a metric without labels. */
    server.metric = async (name) => {
      const text = await (await fetch(`${server.admin}/metrics`)).text();
      return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
    };
    const readyz = `${server.admin}/readyz`;
    await server.ready(() =>
      fetch(readyz).then(
        (reply) => reply.ok,
        () => false,
      ),
    );
    return server;
  }
}

const websocketOn = (port) => `ws://127.0.0.1:${port}/connection/websocket`;

function accepts(port) {
  return new Promise((answer) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => answer(true)).once("error", () => answer(false));
    socket.once("connect", () => socket.destroy());
  });
}

/**
 * A TCP proxy to a local port. While it is cut, it has no connections and accepts none. While it is stalled, connections
 * stay and are accepted, but no byte passes in either direction.
 */
export class Cable {
  #pairs = new Set(); // [near, far]: the two sockets of a connection
  #whole = true;
  #stalled = false;

  static async to(port) {
    const cable = new Cable();
    cable.target = port;
    cable.server = net.createServer((near) => cable.#join(near, net.connect(cable.target, "127.0.0.1")));
    cable.server.listen(0, "127.0.0.1");
    await once(cable.server, "listening");
    cable.port = cable.server.address().port;
    cable.websocket = websocketOn(cable.port);
    return cable;
  }

  #join(near, far) {
    const pair = [near, far];
    this.#pairs.add(pair);
    for (const socket of pair) {
      socket.on("error", () => {}); // 'close' follows
      socket.on("close", () => {
        this.#pairs.delete(pair);
        for (const other of pair) other.destroy();
      });
    }
    if (!this.#whole) near.destroy();
    else if (!this.#stalled) this.#pass(pair);
  }

  #pass([near, far]) {
    near.pipe(far);
    far.pipe(near);
  }

  /** Resets the clients' sockets. */
  cut() {
    this.#whole = false;
    for (const [near, far] of this.#pairs) {
      // Node.js does not close a socket that is reset while its end is being sent.
      if (near.writableEnded) near.destroy();
      else near.resetAndDestroy();
      far.destroy();
    }
  }

  mend() {
    this.#whole = true;
  }

  stall() {
    this.#stalled = true;
    for (const [near, far] of this.#pairs) {
      near.unpipe(far);
      far.unpipe(near);
    }
  }

  resume() {
    this.#stalled = false;
    for (const pair of this.#pairs) this.#pass(pair);
  }

  /** Leads the connections from now on to another port. */
  leadTo(port) {
    this.target = port;
  }

  async close() {
    this.#whole = false;
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.server.close();
  }
}
