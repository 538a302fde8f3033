// Write throughput of PocketBase with the gateway's hooks, as a share of plain PocketBase.
//
//   POCKETBASE=/path/to/pocketbase node benches/writes.mjs [--writers 50] [--rounds 6] [--seconds 3] [--pool 100]
//       [--kinds relayed,unrelated,field] [--also NAME=FOLDER]
//
// Two PocketBase servers run side by side with the same schema and rules: "plain" without the gateway's hooks, "hooks"
// with them and a real gateway behind. In each round every kind of write runs on one server, then on the other, for a
// few seconds each; the server that begins changes from round to round. Each writer is a user on a separate connection
// and sends the next write after the answer to the last (closed loop). `--also` (repeatable) measures other versions
// of the hooks in turn: FOLDER is a copy of deploy/pocketbase.
//
//   relayed    creates in `messages`, which go to a channel
//   unrelated  creates in `notes`, a collection that is not relayed and not named in an access rule
//   field      updates of `users.name`, a field that no rule reads, of a collection that rules do read
//
// The table gives medians over the rounds. "CPU" is user and system time of the PocketBase process per write. It is
// more reliable than the rates when other programs use the machine too.

import { cpSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { parseArgs } from "node:util";
import { Lab, freePort } from "../tests/node/harness.mjs";
import { PocketBase } from "../tests/pocketbase/harness.mjs";

const { values: options } = parseArgs({
  options: {
    writers: { type: "string", default: "50" },
    rounds: { type: "string", default: "6" },
    seconds: { type: "string", default: "3" },
    pool: { type: "string", default: "100" },
    kinds: { type: "string", default: "relayed,unrelated,field" },
    also: { type: "string", multiple: true, default: [] },
  },
});
const [writers, rounds, seconds] = [options.writers, options.rounds, options.seconds].map(Number);
const kinds = options.kinds.split(",");
const ARGS = [`--hooksPool=${options.pool}`];

/** CPU time of a process in seconds; Linux counts in hundredths. */
function cpuSeconds(pid) {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")
    .slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}

// ---- the writers

/** A kept-open HTTP connection, cheaper than fetch, since the load generator shares the machine with the servers. */
class Connection {
  #text = "";
  #waiting;

  constructor(url) {
    const { hostname, port } = new URL(url);
    this.host = `${hostname}:${port}`;
    this.socket = net.connect({ host: hostname, port, noDelay: true });
    this.socket.setEncoding("latin1").on("data", (data) => this.#read(data));
    this.socket.on("error", (error) => this.#waiting?.reject(error));
    this.socket.on("close", () => this.#waiting?.reject(new Error("the connection was closed")));
  }

  /** Sends a request and waits for the answer; rejects if the status is no success. */
  send(method, target, token, body) {
    const head = `${method} ${target} HTTP/1.1\r\nHost: ${this.host}\r\nAuthorization: ${token}\r\n`;
    this.socket.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }));
  }

  close() {
    this.socket.removeAllListeners("close").destroy();
  }

  #read(data) {
    this.#text += data;
    const end = this.#text.indexOf("\r\n\r\n");
    if (end < 0) return;
    const [, length] = /\r\ncontent-length: (\d+)/i.exec(this.#text.slice(0, end)) ?? [];
    if (length === undefined) return this.#waiting.reject(new Error(`no length: ${this.#text}`));
    if (this.#text.length < end + 4 + Number(length)) return;
    const { resolve, reject } = this.#waiting;
    const answer = this.#text;
    this.#text = "";
    if (answer.startsWith("HTTP/1.1 200")) resolve();
    else reject(new Error(answer));
  }
}

/** The next write of a writer: [method, target, body]. */
const WRITES = {
  relayed: ({ user, room }) => [
    "POST",
    "/api/collections/messages/records",
    { room: room.id, author: user.id, content: "x".repeat(256), type: "text" },
  ],
  unrelated: ({ user }) => ["POST", "/api/collections/notes/records", { owner: user.id, content: "x".repeat(256) }],
  field: ({ user }, i) => ["PATCH", `/api/collections/users/records/${user.id}`, { name: `name ${i}` }],
};

async function writer(server, index) {
  const user = await server.pb.user(`writer${index}`);
  const room = await server.pb.create("rooms", { name: "r", type: "private", owner: user.id }, user);
  return { user, room, connection: new Connection(server.pb.url) };
}

/** Lets all writers write for `seconds`: {rate: writes per second, cpu: PocketBase's seconds, times: ms}. */
async function load(server, kind, seconds) {
  const before = cpuSeconds(server.pb.process.pid);
  const start = performance.now();
  const times = [];
  await Promise.all(
    server.writers.map(async (one) => {
      for (let i = 0, now = start; now - start < seconds * 1000; i++) {
        const [method, target, body] = WRITES[kind](one, i);
        await one.connection.send(method, target, one.user.token, JSON.stringify(body));
        const end = performance.now();
        times.push(end - now);
        now = end;
      }
    }),
  );
  const rate = (times.length / (performance.now() - start)) * 1000;
  return { rate, cpu: cpuSeconds(server.pb.process.pid) - before, times };
}

// ---- the servers

/** Removes the gateway's hooks; the chat's own hooks, which ensure memberships, stay. */
function withoutHooks(folder) {
  for (const file of ["gateway.pb.js", "push.pb.js"]) rmSync(path.join(folder, "pb_hooks", file));
}

/** Removes the example of push notifications, and installs the hooks of another folder if one is given. */
const withHooks = (other) => (folder) => {
  for (const part of other ? ["pb_hooks/gateway", "pb_hooks/gateway.pb.js"] : []) {
    rmSync(path.join(folder, part), { recursive: true });
    cpSync(path.join(other, part), path.join(folder, part), { recursive: true });
  }
  rmSync(path.join(folder, "pb_hooks/push.pb.js"));
};

/** Starts PocketBase with the gateway's hooks and a gateway behind it. */
async function withGateway(lab, name, folder) {
  const port = await freePort();
  const gatewayUrl = `http://127.0.0.1:${port}`;
  const pb = await PocketBase.start({ prepare: withHooks(folder), arguments: ARGS, gatewayUrl });
  lab.defer(() => pb.stop());
  return { name, pb, gateway: await lab.gateway(name, { port, pocketbase: pb }) };
}

async function withoutGateway(lab, name) {
  const pb = await PocketBase.start({ prepare: withoutHooks, arguments: ARGS });
  lab.defer(() => pb.stop());
  return { name, pb };
}

/** Creates the collection of unrelated writes and the writers, and warms up the server. */
async function prepare(lab, server) {
  const [owner, content] = ["owner", "content"].map((name) => ({ name, type: "text" }));
  const createRule = '@request.auth.id != ""';
  const notes = { name: "notes", type: "base", fields: [owner, content], createRule, viewRule: createRule };
  const { status } = await server.pb.call("POST", "/api/collections", notes, server.pb.root);
  if (status !== 200) throw new Error(`creating the collection "notes": ${status}`);
  server.writers = await Promise.all(Array.from({ length: writers }, (_, i) => writer(server, i)));
  lab.defer(async () => server.writers.forEach(({ connection }) => connection.close()));
  for (const kind of kinds) await load(server, kind, 3);
}

/** The values of a gateway's counter by its only label: {hook: 5, repeat: 1}. */
async function counters(gateway, name) {
  const text = await (await fetch(`${gateway.admin}/metrics`)).text();
  const values = [...text.matchAll(new RegExp(`^${name}\\{[^"]*"([^"]*)"\\} (\\d+)`, "gm"))];
  return Object.fromEntries(values.map(([, label, value]) => [label, Number(value)]));
}

const EVENTS = "gateway_relay_events_total";
const REFUSED = "gateway_hooks_refused_total";

// ---- the report

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const sum = (runs, what) => runs.reduce((all, run) => all + run[what], 0);
/** PocketBase's CPU time per write, summed over all rounds, since the kernel counts in hundredths of a second. */
const cpu = (runs) => sum(runs, "cpu") / runs.reduce((all, run) => all + run.times.length, 0);
const of = (runs, what) => median(runs.map((run) => run[what]));
const quantile = (runs, share) => {
  const times = runs.flatMap((run) => run.times).toSorted((a, b) => a - b);
  return times[Math.floor(times.length * share)].toFixed(1);
};

/** One row of the table: one kind of write on one server, compared with the plain server. */
function line(kind, name, runs, plain) {
  const ratios = runs.map((run, i) => run.rate / plain[i].rate);
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(2));
  return [
    kind,
    name,
    of(runs, "rate").toFixed(0),
    (of(runs, "rate") / of(plain, "rate")).toFixed(2),
    `${least} to ${most}`,
    (cpu(runs) * 1e6).toFixed(0),
    (cpu(runs) / cpu(plain)).toFixed(2),
    quantile(runs, 0.5),
    quantile(runs, 0.99),
  ];
}

function printTable(results) {
  const head = ["kind", "server", "writes/s", "of plain", "by round", "CPU, µs", "of plain", "p50, ms", "p99, ms"];
  const rows = [];
  for (const kind of kinds) {
    for (const name in results[kind]) rows.push(line(kind, name, results[kind][name], results[kind].plain));
  }
  for (const row of [head, head.map(() => "---"), ...rows]) console.log(`| ${row.join(" | ")} |`);
}

/** Prints the events that the hooks posted, by outcome, and the refused posts, by reason. */
async function printEvents({ name, gateway }) {
  const events = await counters(gateway, EVENTS);
  const all = Object.values(events).reduce((sum, count) => sum + count, 0);
  const share = ((100 * (events.repeat ?? 0)) / all).toFixed(2);
  console.log(
    `${name}: events by outcome:`,
    events,
    `repeats: ${share} %, posts refused:`,
    await counters(gateway, REFUSED),
  );
}

const lab = new Lab();
try {
  const servers = [await withoutGateway(lab, "plain"), await withGateway(lab, "hooks")];
  for (const also of options.also) {
    const [name, folder] = also.split("=");
    servers.push(await withGateway(lab, name, folder));
  }
  for (const server of servers) await prepare(lab, server);

  const results = Object.fromEntries(
    kinds.map((kind) => [kind, Object.fromEntries(servers.map(({ name }) => [name, []]))]),
  );
  for (let round = 0; round < rounds; round++) {
    for (const kind of kinds) {
      for (const server of round % 2 ? servers.toReversed() : servers) {
        results[kind][server.name].push(await load(server, kind, seconds));
      }
    }
  }
  console.log(`${writers} writers, ${rounds} rounds of ${seconds} s each, --hooksPool=${options.pool}\n`);
  printTable(results);
  for (const server of servers) if (server.gateway) await printEvents(server);
} finally {
  await lab.stop();
}
