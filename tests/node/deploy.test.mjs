// The installation with Docker: a real daemon, the real Compose, images built by the project's Dockerfiles. The images
// that an operator pulls (python, redis, nginx, prometheus) are stood in for by one made of Debian's packages.

import assert from "node:assert/strict";
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import path from "node:path";
import { after, before, test } from "node:test";

import { ROOT, until } from "../pocketbase/harness.mjs";
import { Dockerd, run } from "./deploy/dockerd.mjs";
import { BINARY, INSTALL, Stack } from "./deploy/stack.mjs";
import { Prometheus } from "./deploy/prometheus.mjs";
import { Swarm } from "./deploy/swarm.mjs";

const MEGABYTE = 1 << 20;
let dockerd, stack, alice, bob, room;

before(async () => {
  dockerd = await Dockerd.get();
  stack = await Stack.make(dockerd, { name: "konvert-test", subnet: "172.30.251.0/24" });
});
after(async () => {
  stack?.remove();
  await dockerd?.stop();
});

test("each message of the scripts prints in both languages, with the same arguments", () => {
  const list =
    'source "$0"; for key in "${!EN[@]}" "${!RU[@]}"; do for LANGUAGE_OF_MESSAGES in en ru; do ' +
    'printf "%s\\t%s\\t%s\\t%s\\0" "$key" "${EN[$key]}" "${RU[$key]}" "$(t "$key" 1 2 3)"; done; done';
  const { stdout, output } = run("bash", ["-c", list, path.join(stack.deploy, "install/messages.sh")]);
  assert.equal(output, stdout, "nothing on standard error");
  const lines = stdout.split("\0").filter(Boolean);
  assert.ok(lines.length > 150, `${lines.length} lines`);
  for (const line of lines) {
    const [key, english, russian, printed] = line.split("\t");
    assert.ok(english && russian && printed, line);
    assert.equal(english.split("%s").length, russian.split("%s").length, key);
  }
});

test("install.sh without --yes and without a terminal says what it would do and changes nothing", () => {
  const { status, output } = stack.script("install.sh", [], { allowFailure: true, input: "" });
  assert.equal(status, 1);
  assert.match(output, /This will:[\s\S]*write .*\.env[\s\S]*self-signed[\s\S]*Nothing was changed/);
  assert.ok(!readdirSync(stack.deploy).includes(".env"));
});

test("a taken port is named before the first run, with a command that chooses others", async (t) => {
  const server = net.createServer().listen(Number(stack.env.HTTP_PORT), "127.0.0.1");
  t.after(() => server.close());
  await new Promise((resolve) => server.once("listening", resolve));
  const { status, output } = stack.script("install.sh", INSTALL, { allowFailure: true });
  assert.equal(status, 1);
  assert.match(output, /Port \d+ is taken.*: HTTP_PORT=8080 HTTPS_PORT=8443 POCKETBASE_PORT=8091 \S+install\.sh --yes/);
  assert.ok(!readdirSync(stack.deploy).includes(".env"));
});

test("install.sh brings the stack up, shows the password once, and keeps everything when it runs again", async () => {
  // Written by hand, without secrets and without a newline at the end.
  const own = `# chosen by hand\nGATEWAY_SECRET=\nHTTP_PORT=${stack.env.HTTP_PORT}`;
  writeFileSync(path.join(stack.deploy, ".env"), own);
  const first = stack.script("install.sh", INSTALL).output;
  const password = /user +root@example\.com\n +password +(\w+)/.exec(first)?.[1];
  assert.ok(password, first);
  await stack.login("root@example.com", "_superusers", password);
  const [settings, key] = [stack.env_file(), readFileSync(path.join(stack.deploy, "tls/live/privkey.pem"), "utf8")];
  assert.match(settings, /^GATEWAY_SECRET=[0-9a-f]{64}$/m);
  assert.match(settings, /^REDIS_PASSWORD=[0-9a-f]{48}$/m);
  assert.match(settings, new RegExp(`^# chosen by hand\nGATEWAY_SECRET=\\w+\nHTTP_PORT=${stack.env.HTTP_PORT}\n`));
  assert.equal(statSync(path.join(stack.deploy, ".env")).mode & 0o777, 0o600);

  // What an upgrade and an operator change: a file of the release, as tar replaces it, and files that no release has.
  const [site, nginx] = [path.join(stack.deploy, "nginx/site.conf"), stack.container("nginx")];
  writeFileSync(`${site}.new`, `${readFileSync(site)}\nadd_header X-Release another always;\n`);
  renameSync(`${site}.new`, site);
  const dashboard = path.join(stack.deploy, "nginx/local/dashboard.conf");
  writeFileSync(dashboard, "allow 192.0.2.0/24;\ndeny all;\n");
  writeFileSync(
    path.join(stack.deploy, "compose.override.yaml"),
    'services: { gateway: { labels: { konvert.override: "read" } } }\n',
  );

  const second = stack.script("install.sh", INSTALL, { env: { LANG: "ru_RU.UTF-8" } }).output;
  assert.match(second, /Чат работает: https:\/\/localhost:/);
  assert.match(second, /Суперпользователь уже есть/);
  assert.equal(stack.env_file(), settings);
  assert.equal(readFileSync(path.join(stack.deploy, "tls/live/privkey.pem"), "utf8"), key);
  assert.equal(stack.container("nginx"), nginx, "the container stays");
  await until(async () => (await stack.call("GET", "/_/")).status === 403, "the closed dashboard", 20_000, 100);
  assert.equal((await stack.call("GET", "/")).headers["x-release"], "another");
  assert.match(dockerd.docker(["inspect", stack.container("gateway")]).stdout, /"konvert\.override": "read"/);

  writeFileSync(dashboard, "nonsense;\n");
  const refused = stack.script("install.sh", INSTALL, { allowFailure: true });
  assert.equal(refused.status, 1);
  assert.match(refused.output, /unknown directive "nonsense"[\s\S]*Nginx does not accept its configuration/);
  assert.equal((await stack.call("GET", "/_/")).status, 403, "the former configuration");

  rmSync(dashboard);
  for (const name of ["README.md", "README.ru.md"]) {
    const [, command] = /^ +docker compose (exec .* -s reload)$/m.exec(manual(name));
    stack.compose(command.split(" "));
  }
  await until(async () => (await stack.call("GET", "/_/")).status === 200, "the open dashboard", 20_000, 100);

  // As the READMEs say: a lost password, and the check without a running gateway.
  const upsert = "exec -T pocketbase /pocketbase superuser upsert root@example.com another-password --dir=/pb/pb_data";
  stack.compose(upsert.split(" "));
  await stack.login("root@example.com", "_superusers", "another-password");
  stack.compose(["run", "--rm", "--no-deps", "gateway", "doctor"]);
  assert.match(stack.compose("exec -T nginx curl http://gateway:8001/readyz".split(" ")).stdout, /"status"|ready/);
});

const manual = (name) => readFileSync(path.join(ROOT, "deploy", name), "utf8");

test("Nginx serves the page, PocketBase and the WebSocket, and nothing private", async () => {
  const paths = { "/": 200, "/any/page": 200, "/api/health": 200, "/_/": 200, "/connection/websocket": 426 };
  const hidden = [
    "/api/gateway/events",
    "/api/gateway/keys",
    "/hooks/pocketbase",
    "/hooks",
    "/metrics",
    "/readyz",
    "/livez",
  ];
  for (const [target, status] of [...Object.entries(paths), ...hidden.map((target) => [target, 404])]) {
    assert.equal((await stack.call("GET", target)).status, status, target);
  }
  // The gateway's server API is at its own /api/, which Nginx gives to PocketBase.
  assert.notEqual((await stack.call("POST", "/api/publish", {})).status, 401);
  const plain = await fetch(`${stack.httpUrl}/x`, { redirect: "manual" });
  assert.deepEqual([plain.status, plain.headers.get("location")], [301, `${stack.url}/x`]);
});

test("a renewed certificate, by the script of both READMEs, and the answers of an ACME challenge reach clients", async () => {
  const scripts = ["README.md", "README.ru.md"].map((name) => {
    return /```sh\n(#!\/bin\/sh\n[\s\S]*?)```/.exec(manual(name))[1];
  });
  const comments = (text) => text.replace(/^# .*\n/gm, "");
  assert.equal(comments(scripts[0]), comments(scripts[1]));

  const challenge = path.join(stack.deploy, "tls/live/acme/.well-known/acme-challenge");
  mkdirSync(challenge, { recursive: true });
  writeFileSync(path.join(challenge, "token"), "answer");
  const answer = await fetch(`${stack.httpUrl}/.well-known/acme-challenge/token`);
  assert.deepEqual([answer.status, await answer.text()], [200, "answer"]);

  const lineage = path.join(stack.folder, "lineage");
  mkdirSync(lineage);
  const pair = ["-keyout", path.join(lineage, "privkey.pem"), "-out", path.join(lineage, "fullchain.pem")];
  const names = ["-subj", "/CN=renewed", "-addext", "subjectAltName=DNS:localhost"];
  run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", ...names, ...pair]);
  const script = path.join(stack.deploy, "tls/renew.sh");
  writeFileSync(script, scripts[0], { mode: 0o755 });
  run(script, [], { env: { ...stack.env, RENEWED_LINEAGE: lineage } });
  const subject = async () => (await stack.peer()).subject.CN;
  await until(async () => (await subject()) === "renewed", "the new certificate", 20_000, 100);
  assert.equal((await stack.call("GET", "/api/health")).status, 200);
});

test("the image has at most 12 MB", (t) => {
  const size = Number(dockerd.docker(["image", "inspect", "--format", "{{.Size}}", stack.env.GATEWAY_IMAGE]).stdout);
  t.diagnostic(`image of the gateway: ${(size / 1e6).toFixed(1)} MB`);
  assert.ok(size <= 12e6, `${size} bytes`);
});

test("the containers are locked down, and the idle stack takes less than 200 MB", (t) => {
  let total = 0;
  for (const service of ["pocketbase", "redis", "gateway", "nginx"]) {
    const id = stack.container(service);
    const [{ Config, HostConfig }] = JSON.parse(dockerd.docker(["inspect", id]).stdout);
    assert.ok(HostConfig.ReadonlyRootfs && HostConfig.CapDrop[0] === "ALL", service);
    assert.ok(Number(Config.User.split(":")[0]) > 0, `${service} runs as ${Config.User}`);
    const used = dockerd.memory(id);
    t.diagnostic(`${service}: ${(used / MEGABYTE).toFixed(1)} MiB`);
    total += used;
  }
  t.diagnostic(`together: ${(total / MEGABYTE).toFixed(1)} MiB`);
  assert.ok(total < 200e6, `${total} bytes`);
});

test("two clients miss nothing while install.sh replaces the gateway by another build", async (t) => {
  [alice, bob] = [await stack.user("alice"), await stack.user("bob")];
  room = (await stack.create("rooms", { name: "Room", type: "private", owner: alice.id }, alice)).id;
  await stack.create("room_members", { room, user: bob.id, role: "member" }, alice);
  const clients = [await stack.client(alice, `room:${room}`), await stack.client(bob, `room:${room}`)];
  t.after(() => clients.forEach((client) => client.disconnect()));

  // PocketBase restarts too, since its image has the hooks of the build. A write that fails meanwhile is not repeated;
  // PocketBase's own list is the truth afterwards.
  let running = true;
  let [tries, failures] = [0, 0];
  const writing = (async () => {
    while (running) {
      const content = `message ${tries++}`;
      const write = stack.create("messages", { room, author: alice.id, content, type: "text" }, alice);
      if (
        !(await write.then(
          () => true,
          () => false,
        ))
      )
        failures += 1;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  await until(() => clients.every((client) => client.messages.length > 20), "messages before the change", 20_000);

  const old = stack.container("gateway");
  const other = path.join(stack.folder, "other-build");
  copyFileSync(BINARY, other);
  appendFileSync(other, "another build");
  await stack.inBackground("install.sh", [...INSTALL, "--gateway", other]);
  assert.notEqual(stack.container("gateway"), old);

  await until(() => clients.every((client) => client.connects.length > 1), "both clients to be back", 60_000);
  running = false;
  await writing;
  const written = await stack.contents(room, alice);
  assert.ok(written.length > 20 && failures < tries / 2, `${failures} of ${tries} writes failed`);
  await until(() => clients.every((client) => client.messages.length >= written.length), "the last message", 20_000);
  for (const client of clients) {
    assert.deepEqual(client.messages, written);
    assert.equal(client.unrecovered, 0);
    // The first "connecting" is the start. 3001: the gateway asked the client to reconnect, within shutdown_spread.
    assert.equal(client.told[1].code, 3001);
  }
  const [first, last] = [Math.min(...clients.map((c) => c.told[1].at)), Math.max(...clients.map((c) => c.told[1].at))];
  t.diagnostic(
    `${written.length} messages, ${failures} writes failed while PocketBase restarted; told to reconnect within ${last - first} ms of each other`,
  );
  const away = clients.map((client) => client.connects[1] - client.told[1].at);
  t.diagnostic(`back after ${away.join(" and ")} ms`);
  // shutdown_spread is 5 s; the gateway cuts off remaining clients after 10 s, with another code.
  assert.ok(last - first <= 10_000, `${last - first} ms`);
});

test("Prometheus shows the relay at work; a stopped Redis fires its alert, and a started Redis clears it", async (t) => {
  const prometheus = await Prometheus.start(stack);
  const relayed = () => prometheus.value("sum(gateway_relay_events_total)");
  const first = await until(relayed, "the first scrape", 60_000, 500);
  await stack.create("messages", { room, author: alice.id, content: "for Prometheus", type: "text" }, alice);
  await until(async () => (await relayed()) > first, "a scrape with the publication", 60_000, 500);
  assert.deepEqual(await prometheus.firing(), []);

  const started = Date.now();
  stack.compose(["stop", "redis"]);
  await until(async () => (await prometheus.firing()).includes("GatewayRedisDown"), "the alert", 240_000, 500);
  const fired = Date.now();
  stack.compose(["start", "redis"]);
  await until(async () => (await prometheus.firing()).length === 0, "the end of the alert", 120_000, 500);
  t.diagnostic(`fired after ${fired - started} ms, cleared after ${Date.now() - fired} ms`);
});

test("10,000 subscribed clients fit into a container of 64 MB", async (t) => {
  const { GATEWAY_SECRET } = Object.fromEntries(
    stack
      .env_file()
      .split("\n")
      .map((line) => line.split("=")),
  );
  const settings = {
    ...{ GATEWAY_SECRET, GATEWAY_POCKETBASE_URL: "http://pocketbase:8090", GATEWAY_SHUTDOWN_SPREAD: "0" },
    ...{ GATEWAY_MAX_CONNECTIONS_PER_IP: "0", GATEWAY_MAX_CONNECTIONS_PER_USER: "0", GATEWAY_REDIS_PREFIX: "small" },
  };
  const limits = [
    "--memory",
    "64m",
    "--memory-swap",
    "64m",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--sysctl",
    "net.core.somaxconn=4096",
  ];
  const env = Object.entries(settings).flatMap(([name, value]) => ["--env", `${name}=${value}`]);
  const id = dockerd
    .docker(["run", "--detach", ...limits, ...env, "--network", `${stack.name}_edge`, stack.env.GATEWAY_IMAGE])
    .stdout.trim();
  t.after(() => dockerd.docker(["rm", "--force", id]));
  const inspect = (format) => dockerd.docker(["inspect", "--format", format, id]).stdout.trim();
  await until(() => inspect("{{.State.Health.Status}}") === "healthy", "the small gateway", 60_000, 500);

  const host = inspect(`{{(index .NetworkSettings.Networks "${stack.name}_edge").IPAddress}}`);
  const swarm = new Swarm({ host, port: 8000, token: alice.token, channel: `room:${room}` });
  t.after(() => swarm.close());
  await swarm.add(10_000);
  swarm.await("for ten thousand");
  await stack.create("messages", { room, author: alice.id, content: "for ten thousand", type: "text" }, alice);
  await until(() => swarm.received === 10_000, "the message at all clients", 60_000);
  const times = [];
  for (let number = 0; number < 21; number++) {
    const begin = performance.now();
    const { connections } = await (await fetch(`http://${host}:8001/overview`)).json();
    times.push(performance.now() - begin);
    // Clients that answer a ping too late on a busy machine are gone by now.
    assert.ok(connections > 9000, `${connections} connections`);
  }
  const median = times.sort((a, b) => a - b)[10];
  t.diagnostic(`data of the admin page: ${median.toFixed(1)} ms (median of 21)`);
  // Usually some milliseconds.
  assert.ok(median < 200, `${median} ms`);
  t.diagnostic(`${swarm.sockets.length} clients: ${(dockerd.memory(id) / MEGABYTE).toFixed(1)} MiB`);
  assert.equal(inspect("{{.State.OOMKilled}} {{.RestartCount}} {{.State.Running}}"), "false 0 true");
});

test("more than 1,000 clients come through Nginx, and the limit per address counts clients, not Nginx", async (t) => {
  // A network of its own between the clients and Nginx, with one address of the host for each group of clients.
  const network = "konvert-test-clients";
  dockerd.docker(["network", "create", "--subnet", "172.30.253.0/24", network]);
  const nginx = stack.container("nginx");
  dockerd.docker(["network", "connect", network, nginx]);
  const bridge = `br-${dockerd.docker(["network", "inspect", "--format", "{{.Id}}", network]).stdout.slice(0, 12)}`;
  t.after(() => {
    dockerd.docker(["network", "disconnect", network, nginx]);
    dockerd.docker(["network", "rm", network]);
  });
  const addresses = ["172.30.253.101", "172.30.253.102"];
  for (const address of addresses) run("ip", ["address", "add", `${address}/24`, "dev", bridge]);
  const host = dockerd
    .docker(["inspect", "--format", `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, nginx])
    .stdout.trim();

  const crowd = [];
  for (let number = 0; number < 24; number++) crowd.push(await stack.user(`crowd${number}`));
  const swarms = crowd.map(
    ({ token }) => new Swarm({ host, port: 8443, token, channel: `status:${alice.id}`, ca: stack.certificate() }),
  );
  t.after(() => swarms.forEach((swarm) => swarm.close()));
  for (const [number, swarm] of swarms.entries())
    await swarm.add(50, { localAddress: addresses[number % 2], batch: 50 });
  const joined = swarms.reduce((sum, swarm) => sum + swarm.sockets.length, 0);
  assert.equal(joined, 1200, `refused: ${swarms.flatMap((swarm) => swarm.refused).slice(0, 5)}`);
});

test("--uninstall removes monitoring and the networks too, and names the volumes that stay", () => {
  const { output } = stack.script("install.sh", ["--uninstall", "--yes"]);
  assert.match(output, /docker volume rm (\S+ )*konvert-test_pocketbase konvert-test_prometheus konvert-test_redis/);
  const mine = ["--quiet", "--filter", `label=com.docker.compose.project=${stack.name}`];
  assert.equal(dockerd.docker(["ps", "--all", ...mine]).stdout, "");
  assert.equal(dockerd.docker(["network", "ls", ...mine]).stdout, "");
});
