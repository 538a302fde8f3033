// deploy/quickstart.sh, used by a newcomer or by a program.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readFileSync, readdirSync, statSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import WebSocket from "ws";
import { Lab, next, root } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
const run = promisify(execFile);
const data = join(lab.folder, "data");
after(() => lab.stop());

let runs = 0;

/** Starts the quickstart with the plain page; `stdout` collects the output. The first run may build the gateway. */
function quickstart(args, env) {
  const options = ["--plain", ...args];
  const server = lab.start(`quickstart-${++runs}`, join(root, "deploy/quickstart.sh"), options, {
    env,
    stdout: "pipe",
  });
  server.stdout = "";
  server.process.stdout.on("data", (chunk) => (server.stdout += chunk));
  return server;
}

async function headless(...ports) {
  const server = quickstart(["--headless", `--data=${data}`, ...(ports.length ? ports : anywhere)]);
  await server.ready(() => server.stdout.endsWith("\n"), 900_000);
  server.facts = JSON.parse(server.stdout);
  return server;
}

const anywhere = ["--port-gateway=0", "--port-pocketbase=0"];
const status = async (url, options) => (await fetch(url, options)).status;

function refuses(url) {
  return new Promise((answer) => {
    const socket = net.connect(new URL(url).port, "127.0.0.1");
    socket.once("error", () => answer(true)).once("connect", () => answer(false));
    socket.once("connect", () => socket.destroy());
  });
}

check("--help answers before anything is built or downloaded", async () => {
  const env = { PATH: "/usr/bin:/bin", HOME: lab.folder, CARGO_TARGET_DIR: join(lab.folder, "nothing-built") };
  const { stdout } = await run(join(root, "deploy/quickstart.sh"), ["--help"], { env, timeout: 60_000 });
  for (const part of ["konvert-gateway dev", "KONVERT_GATEWAY", "POCKETBASE"]) assert.match(stdout, new RegExp(part));
  assert.ok(!existsSync(env.CARGO_TARGET_DIR));
});

let first;

check("one line of JSON gives the addresses, and the servers answer there", async () => {
  const server = await headless();
  first = server.facts;
  const { websocket, gateway, admin, pocketbase, superuser, users, room } = first;
  assert.equal(server.stdout.trim().split("\n").length, 1);
  assert.ok(users.length >= 2);
  assert.equal(websocket, `${gateway.replace("http", "ws")}/connection/websocket`);

  for (const url of [
    `${admin}/livez`,
    `${admin}/readyz`,
    `${admin}/metrics`,
    pocketbase,
    `${pocketbase}/config.json`,
  ]) {
    assert.equal(await status(url), 200, url);
  }
  for (const file of ["centrifuge.js", "pocketbase.es.mjs"]) {
    assert.match((await fetch(`${pocketbase}/${file}`)).headers.get("content-type"), /javascript/, file);
  }
  const logIn = async (collection, { email, password }) => {
    const body = JSON.stringify({ identity: email, password });
    const headers = { "content-type": "application/json" };
    const target = `${pocketbase}/api/collections/${collection}/auth-with-password`;
    const reply = await fetch(target, { method: "POST", headers, body });
    assert.equal(reply.status, 200, email);
    return reply.json();
  };
  await logIn("_superusers", superuser);
  for (const user of users) {
    const { token, record } = await logIn("users", user);
    assert.equal(record.id, user.id);
    assert.equal(
      await status(`${pocketbase}/api/collections/rooms/records/${room}`, { headers: { authorization: token } }),
      200,
    );
  }
  const socket = new WebSocket(websocket);
  await next(socket, "open");
  socket.terminate();

  const seconds = Number(server.output.match(/ready after ([\d.]+) s/)[1]);
  assert.ok(seconds < 10, `ready after ${seconds} s`);
  assert.equal(statSync(join(data, "gateway-secret")).mode & 0o777, 0o600);

  server.process.kill("SIGTERM");
  assert.equal(await server.ended, "exit 0");
  for (const url of [gateway, admin, pocketbase]) assert.ok(await refuses(url), `${url} still listens`);
});

check("the next run on the same data finds the same users and room; Ctrl-C ends it too", async () => {
  const server = await headless();
  assert.deepEqual(server.facts.users, first.users);
  assert.equal(server.facts.room, first.room);
  server.process.kill("SIGINT");
  assert.equal(await server.ended, "exit 0");
});

check("a busy port is named, with the option that chooses another", async (t) => {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await next(listener, "listening");
  t.after(() => listener.close());
  const { port } = listener.address();
  for (const option of ["--port-gateway", "--port-pocketbase"]) {
    const server = quickstart([...anywhere, `--data=${data}`, `${option}=${port}`]);
    assert.equal(await server.ended, "exit 2");
    assert.match(server.output, new RegExp(`port ${port} .*${option}`));
  }
});

/** The process id of the program whose command line contains `part`. */
function processWith(part) {
  const ids = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const found = ids.find((id) => {
    try {
      return readFileSync(`/proc/${id}/cmdline`, "utf8").includes(part);
    } catch {
      return false; // ended meanwhile
    }
  });
  assert.ok(found, `no process with ${part}`);
  return Number(found);
}

check(
  "a killed gateway is started again; when PocketBase ends, the gateway is stopped and the reason shown",
  async () => {
    const server = await headless();
    const { gateway, admin, pocketbase } = server.facts;
    process.kill(processWith(`--listen=${new URL(gateway).host}`), "SIGKILL");
    await server.ready(() => /the gateway ended .*starting it again/.test(server.output));
    await server.ready(async () => (await status(`${admin}/readyz`).catch(() => 0)) === 200);

    process.kill(processWith(`--http=${new URL(pocketbase).host}`), "SIGKILL");
    assert.equal(await server.ended, "exit 2");
    assert.match(server.output, /PocketBase ended \(signal: 9 \(SIGKILL\)\)\. The end of .*pocketbase\.log/);
    for (const url of [gateway, admin]) assert.ok(await refuses(url), `${url} still listens`);
  },
);

check("a directory without a page is refused, with the way to build one", async () => {
  const server = lab.start(
    "quickstart-site",
    join(root, "deploy/quickstart.sh"),
    [...anywhere, `--data=${data}`, `--site=${lab.folder}`],
    { stdout: "pipe" },
  );
  assert.equal(await server.ended, "exit 2");
  assert.match(server.output, /has no index\.html; build the chat there \(npm ci/);
});

check("a second run in the same directory is refused", async () => {
  const server = await headless();
  const second = quickstart([...anywhere, `--data=${data}`]);
  assert.equal(await second.ended, "exit 2");
  assert.match(second.output, /another "konvert-gateway dev" runs in .*--data/);
  server.process.kill("SIGTERM");
  assert.equal(await server.ended, "exit 0");
});

check("a setting of the gateway as an option reaches the gateway", async () => {
  const server = quickstart(["--headless", ...anywhere, `--data=${data}`, "--history-size=0"]);
  assert.equal(await server.ended, "exit 2");
  assert.match(server.output, /the gateway ended[\s\S]*history_size/);
  assert.equal(server.stdout, "");
});
