// An installation made by install.sh from an unpacked release, and its users.

import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import https from "node:https";
import path from "node:path";
import tls from "node:tls";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { PASSWORD, ROOT, freePort } from "../../pocketbase/harness.mjs";
import { next } from "../harness.mjs";
import { BASE, TOOLS, run } from "./dockerd.mjs";

/** The static binary under test, built by run.sh. */
export const BINARY = process.env.KONVERT_STATIC_GATEWAY || path.join(TOOLS, "static/konvert-gateway");
const PARTS = [
  "backup",
  "backup.sh",
  "compose.yaml",
  ".env.example",
  "docker",
  "get-pocketbase.sh",
  "grafana",
  "install",
  "install.sh",
  "nginx",
  "operator",
  "prometheus",
  "restore.sh",
  "systemd",
];

/** Arguments of install.sh. */
export const INSTALL = ["--yes", "--domain", "localhost", "--email", "root@example.com"];

/** A folder like an unpacked release. */
export function release() {
  const folder = mkdtempSync("/var/tmp/konvert-release-");
  mkdirSync(path.join(folder, "bin"));
  mkdirSync(path.join(folder, "deploy"));
  cpSync(BINARY, path.join(folder, "bin/konvert-gateway"));
  cpSync(path.join(ROOT, ".dockerignore"), path.join(folder, ".dockerignore"));
  for (const part of PARTS)
    cpSync(path.join(ROOT, "deploy", part), path.join(folder, "deploy", part), { recursive: true });
  return folder;
}

/** A running chat behind TLS at `url`, with a self-signed certificate that its clients verify. */
export class Site {
  /** `certificate()` returns the PEM. */
  constructor(url, certificate) {
    Object.assign(this, { url, certificate });
  }

  /** A request through Nginx: {status, headers, text, body}. */
  call(method, target, body, token) {
    const headers = { ...(token && { authorization: token }) };
    if (body !== undefined) headers["content-type"] = "application/json";
    return new Promise((resolve, reject) => {
      const request = https.request(
        this.url + target,
        { method, headers, ca: this.certificate(), agent: AGENT, checkServerIdentity },
        (response) => {
          let text = "";
          response
            .on("data", (chunk) => (text += chunk))
            .on("end", () => {
              const parsed = response.headers["content-type"]?.includes("json") ? JSON.parse(text) : undefined;
              resolve({ status: response.statusCode, headers: response.headers, text, body: parsed });
            });
        },
      );
      request.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** The certificate that Nginx shows. */
  peer() {
    return new Promise((resolve, reject) => {
      const { hostname: host, port } = new URL(this.url);
      const socket = tls.connect({ host, port, servername: "localhost", rejectUnauthorized: false }, () => {
        resolve(socket.getPeerCertificate());
        socket.destroy();
      });
      socket.on("error", reject);
    });
  }

  async done(method, target, body, token) {
    const answer = await this.call(method, target, body, token);
    if (answer.status >= 300) throw new Error(`${method} ${target}: ${answer.status} ${answer.text}`);
    return answer.body;
  }

  async login(name, collection = "users", password = PASSWORD) {
    const identity = name.includes("@") ? name : `${name}@example.com`;
    const { token, record } = await this.done("POST", `/api/collections/${collection}/auth-with-password`, {
      identity,
      password,
    });
    return { token, id: record.id, name };
  }

  async user(name) {
    const email = `${name}@example.com`;
    await this.done("POST", "/api/collections/users/records", {
      email,
      name,
      password: PASSWORD,
      passwordConfirm: PASSWORD,
    });
    return this.login(name);
  }

  create(collection, record, { token }) {
    return this.done("POST", `/api/collections/${collection}/records`, record, token);
  }

  /** The content of all messages of a room, in the order of their creation. */
  async contents(room, { token }) {
    const found = [];
    for (let page = 1; ; page++) {
      const list = `/api/collections/messages/records?filter=(room='${room}')&perPage=500&sort=created&page=${page}`;
      const answer = await this.done("GET", list, undefined, token);
      found.push(...answer.items.map((message) => message.content));
      if (page >= answer.totalPages) return found;
    }
  }

  /** A client of the SDK through Nginx, subscribed to a channel; it collects the messages and the times of reconnects. */
  async client({ token }, channel) {
    const ca = this.certificate();
    const Secure = class extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { ca, checkServerIdentity });
      }
    };
    const client = new Centrifuge(`${this.url.replace("https", "wss")}/connection/websocket`, {
      websocket: Secure,
      token,
      maxReconnectDelay: 2000,
    });
    client.told = [];
    client.connects = [];
    client.on("connecting", ({ code }) => client.told.push({ code, at: Date.now() }));
    client.on("connected", () => client.connects.push(Date.now()));
    const subscription = client.newSubscription(channel);
    client.messages = [];
    client.unrecovered = 0;
    subscription.on("publication", ({ data }) => {
      if (data.collection === "messages") client.messages.push(data.record.content);
    });
    subscription.on("subscribed", ({ wasRecovering, recovered }) => {
      if (wasRecovering && !recovered) client.unrecovered += 1;
    });
    const live = next(subscription, "subscribed");
    subscription.subscribe();
    client.connect();
    await live;
    return client;
  }
}
// The host of the tests is an address that the certificate may not name.
const checkServerIdentity = () => undefined;

export class Stack extends Site {
  /** `name` and `subnet` are the stack's own. */
  static async make(dockerd, { name, subnet }) {
    const ports = [];
    while (ports.length < 4) ports.push(await freePort());
    return new Stack(dockerd, { name, ports, subnet });
  }

  constructor(dockerd, { name, ports: [http, httpsPort, pocketbase, prometheus], subnet }) {
    super(`https://127.0.0.1:${httpsPort}`, () => readFileSync(path.join(this.deploy, "tls/live/fullchain.pem")));
    this.dockerd = dockerd;
    this.name = name;
    this.folder = release();
    this.deploy = path.join(this.folder, "deploy");
    this.httpUrl = `http://127.0.0.1:${http}`;
    this.env = {
      ...dockerd.env,
      ...{ COMPOSE_PROJECT_NAME: name, HTTP_PORT: String(http), HTTPS_PORT: String(httpsPort) },
      ...{ POCKETBASE_PORT: String(pocketbase), EDGE_SUBNET: subnet },
      ...{ PROMETHEUS_PORT: String(prometheus), PROMETHEUS_IMAGE: `${name}-prometheus:local` },
      ...{ GATEWAY_IMAGE: `${name}-gateway:local`, POCKETBASE_IMAGE: `${name}-pocketbase:local` },
      ...{ REDIS_IMAGE: BASE, NGINX_IMAGE: BASE, PYTHON_IMAGE: BASE },
    };
  }

  /** Runs a script of deploy/. */
  script(name, args = [], { env = {}, ...options } = {}) {
    return run(path.join(this.deploy, name), args, { env: { ...this.env, LANG: "C.UTF-8", ...env }, ...options });
  }

  /** The same while the test's clients go on: a promise of the output. */
  inBackground(name, args) {
    return new Promise((resolve, reject) => {
      const options = { env: { ...this.env, LANG: "C.UTF-8" }, maxBuffer: 64 << 20 };
      execFile(path.join(this.deploy, name), args, options, (error, stdout, stderr) =>
        error ? reject(new Error(`${name}: ${stdout}${stderr}`)) : resolve(stdout + stderr),
      );
    });
  }

  /** Installs the stack; returns the superuser with a token. */
  async install() {
    const output = await this.inBackground("install.sh", INSTALL);
    return this.login("root@example.com", "_superusers", /password +(\w+)/.exec(output)[1]);
  }

  compose(args, options) {
    const files = ["--project-directory", this.deploy, "--env-file", path.join(this.deploy, ".env")];
    return run("docker", ["compose", ...files, "-f", path.join(this.deploy, "compose.yaml"), ...args], {
      env: this.env,
      ...options,
    });
  }

  container(service) {
    return this.compose(["ps", "--quiet", service]).stdout.trim();
  }

  address(service, network = "edge") {
    const format = `{{(index .NetworkSettings.Networks "${this.name}_${network}").IPAddress}}`;
    return this.dockerd.docker(["inspect", "--format", format, this.container(service)]).stdout.trim();
  }

  env_file() {
    return readFileSync(path.join(this.deploy, ".env"), "utf8");
  }

  remove() {
    if (existsSync(path.join(this.deploy, ".env")))
      this.compose(["down", "--volumes", "--timeout", "1"], { allowFailure: true });
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const AGENT = new https.Agent({ keepAlive: false });
