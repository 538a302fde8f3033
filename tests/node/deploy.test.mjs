// The installation with Docker: a real daemon, the real Compose, images built by the project's Dockerfiles. The images
// that an operator pulls (python, redis, nginx) are stood in for by one made of Debian's packages.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { appendFileSync, copyFileSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { freePort, until } from "../pocketbase/harness.mjs";
import { Dockerd, TOOLS, run } from "./deploy/dockerd.mjs";
import { BINARY, Stack } from "./deploy/stack.mjs";
import { Lab } from "./harness.mjs";
import { Swarm } from "./deploy/swarm.mjs";

const BASE = "konvert-test-base:local";
const MEGABYTE = 1 << 20;
let dockerd, stack, restored, alice, bob, room, archive, counts, superuser;

before(async () => {
  dockerd = await Dockerd.start();
  dockerd.docker(["import", path.join(TOOLS, "deploy-base.tar"), BASE]);
  const ports = async () => [await freePort(), await freePort(), await freePort()];
  stack = new Stack(dockerd, { name: "konvert-test", ports: await ports(), subnet: "172.30.251.0/24", image: BASE });
  restored = new Stack(dockerd, {
    name: "konvert-restored",
    ports: await ports(),
    subnet: "172.30.252.0/24",
    image: BASE,
  });
});
after(async () => {
  for (const one of [stack, restored]) one?.remove();
  await dockerd?.stop();
});

/** Runs a script of the installation while the test's clients go on: a promise of its output. */
function inBackground(of, name, args) {
  return new Promise((resolve, reject) => {
    const options = { env: { ...of.env, LANG: "C.UTF-8" }, maxBuffer: 64 << 20 };
    execFile(path.join(of.deploy, name), args, options, (error, stdout, stderr) =>
      error ? reject(new Error(`${name}: ${stdout}${stderr}`)) : resolve(stdout + stderr),
    );
  });
}

const install = ["--yes", "--domain", "localhost", "--email", "root@example.com"];

test("install.sh without --yes and without a terminal says what it would do and changes nothing", () => {
  const { status, output } = stack.script("install.sh", [], { allowFailure: true, input: "" });
  assert.equal(status, 1);
  assert.match(output, /This will:[\s\S]*write .*\.env[\s\S]*self-signed[\s\S]*Nothing was changed/);
  assert.ok(!readdirSync(stack.deploy).includes(".env"));
});

test("install.sh brings the stack up, shows the password once, and keeps everything when it runs again", async () => {
  const first = stack.script("install.sh", install).output;
  const password = /user root@example\.com {2}password (\w+)/.exec(first)?.[1];
  assert.ok(password, first);
  superuser = await stack.login("root@example.com", "_superusers", password);
  const [settings, key] = [stack.env_file(), readFileSync(path.join(stack.deploy, "tls/live/privkey.pem"), "utf8")];
  assert.match(settings, /^GATEWAY_SECRET=[0-9a-f]{64}$/m);
  assert.equal(statSync(path.join(stack.deploy, ".env")).mode & 0o777, 0o600);

  const second = stack.script("install.sh", install, { env: { LANG: "ru_RU.UTF-8" } }).output;
  assert.match(second, /Чат работает: https:\/\/localhost:/);
  assert.match(second, /Суперпользователь уже есть/);
  assert.equal(stack.env_file(), settings);
  assert.equal(readFileSync(path.join(stack.deploy, "tls/live/privkey.pem"), "utf8"), key);
});

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
  assert.deepEqual([plain.status, plain.headers.get("location")], [301, "https://127.0.0.1/x"]);
});

test("the image has at most 12 MB, the containers are locked down, and the idle stack takes less than 200 MB", (t) => {
  const size = Number(dockerd.docker(["image", "inspect", "--format", "{{.Size}}", "konvert-gateway:local"]).stdout);
  t.diagnostic(`image of the gateway: ${(size / 1e6).toFixed(1)} MB`);
  assert.ok(size <= 12e6, `${size} bytes`);

  let total = 0;
  for (const service of ["pocketbase", "redis", "gateway", "nginx"]) {
    const id = stack.container(service);
    const [{ Config, HostConfig }] = JSON.parse(dockerd.docker(["inspect", id]).stdout);
    assert.ok(HostConfig.ReadonlyRootfs && HostConfig.CapDrop[0] === "ALL", service);
    assert.ok(Number(Config.User.split(":")[0]) > 0, `${service} runs as ${Config.User}`);
    const used = memoryOf(id);
    t.diagnostic(`${service}: ${(used / MEGABYTE).toFixed(1)} MiB`);
    total += used;
  }
  t.diagnostic(`together: ${(total / MEGABYTE).toFixed(1)} MiB`);
  assert.ok(total < 200e6, `${total} bytes`);
});

/** Memory of a container without reclaimable file pages, as `docker stats` counts. */
function memoryOf(id) {
  const pid = dockerd.docker(["inspect", "--format", "{{.State.Pid}}", id]).stdout.trim();
  const group = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  const unified = /^0::(.*)$/m.exec(group)?.[1];
  const folder = [`/sys/fs/cgroup${unified}`, `/sys/fs/cgroup/memory${/memory:(.*)$/m.exec(group)?.[1]}`].find(
    (name) => {
      try {
        return (
          statSync(name).isDirectory() &&
          readdirSync(name).some((file) => /^memory\.(current|usage_in_bytes)$/.test(file))
        );
      } catch {
        return false;
      }
    },
  );
  const read = (file) => readFileSync(path.join(folder, file), "utf8");
  const usage = Number(
    read(readdirSync(folder).includes("memory.current") ? "memory.current" : "memory.usage_in_bytes"),
  );
  return usage - Number(/^(?:total_)?inactive_file (\d+)$/m.exec(read("memory.stat"))[1]);
}

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
  await inBackground(stack, "install.sh", [...install, "--gateway", other]);
  assert.notEqual(stack.container("gateway"), old);

  await until(() => clients.every((client) => client.connects.length > 1), "both clients to be back", 60_000);
  running = false;
  await writing;
  const written = await contents(alice);
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

/** All messages of the room in the order of their creation. */
async function contents({ token }) {
  const found = [];
  for (let page = 1; ; page++) {
    const answer = await stack.done(
      "GET",
      `/api/collections/messages/records?perPage=500&sort=created&page=${page}`,
      undefined,
      token,
    );
    found.push(...answer.items.map((message) => message.content));
    if (page >= answer.totalPages) return found;
  }
}

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
    .docker(["run", "--detach", ...limits, ...env, "--network", `${stack.name}_edge`, "konvert-gateway:local"])
    .stdout.trim();
  t.after(() => dockerd.docker(["rm", "--force", id]));
  const inspect = (format) => dockerd.docker(["inspect", "--format", format, id]).stdout.trim();
  await until(() => inspect("{{.State.Health.Status}}") === "healthy", "the small gateway", 60_000);

  const host = inspect(`{{(index .NetworkSettings.Networks "${stack.name}_edge").IPAddress}}`);
  const swarm = new Swarm({ host, port: 8000, token: alice.token, channel: `room:${room}` });
  t.after(() => swarm.close());
  await swarm.add(10_000);
  swarm.await("for ten thousand");
  await stack.create("messages", { room, author: alice.id, content: "for ten thousand", type: "text" }, alice);
  await until(() => swarm.received === 10_000, "the message at all clients", 60_000);
  t.diagnostic(`${swarm.sockets.length} clients: ${(memoryOf(id) / MEGABYTE).toFixed(1)} MiB`);
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

test("backup.sh makes an encrypted backup of the running stack, and keeps the newest", async () => {
  const passphrase = path.join(stack.folder, "passphrase");
  writeFileSync(passphrase, "a passphrase of the tests\n", { mode: 0o600 });
  appendFileSync(path.join(stack.deploy, ".env"), `BACKUP_PASSPHRASE_FILE=${passphrase}\nBACKUP_KEEP=2\n`);
  // An upload, so that files are part of the backup.
  const form = new FormData();
  form.set("avatar", new Blob([PIXEL], { type: "image/png" }), "pixel.png");
  const uploaded = await fetch(
    `http://127.0.0.1:${stack.env.POCKETBASE_PORT}/api/collections/users/records/${alice.id}`,
    {
      method: "PATCH",
      body: form,
      headers: { authorization: alice.token },
    },
  );
  assert.equal(uploaded.status, 200, await uploaded.clone().text());
  alice.avatar = (await uploaded.json()).avatar;

  for (const stale of ["konvert-20200101T000000Z.tar.gz", "konvert-20200102T000000Z.tar.gz"]) {
    run("mkdir", ["-p", path.join(stack.deploy, "backups")]);
    writeFileSync(path.join(stack.deploy, "backups", stale), "");
  }
  const { output } = stack.script("backup.sh");
  archive = /backup: (\S+\.tar\.gz\.enc) \(.*checked\)/.exec(output)?.[1];
  assert.ok(archive, output);
  assert.deepEqual(readdirSync(path.dirname(archive)).sort(), [
    "konvert-20200102T000000Z.tar.gz",
    path.basename(archive),
  ]);
  assert.equal(statSync(archive).mode & 0o777, 0o600);
  assert.equal(readFileSync(archive).subarray(0, 8).toString(), "Salted__");
  // Later backups replace the file.
  copyFileSync(archive, path.join(stack.folder, path.basename(archive)));
  archive = path.join(stack.folder, path.basename(archive));
  counts = await countAll(stack, superuser);
  assert.ok(counts.messages > 20 && counts.users >= 26, JSON.stringify(counts));
});

const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

async function countAll(of, { token }) {
  const counts = {};
  for (const name of ["users", "rooms", "room_members", "messages"]) {
    counts[name] = (await of.done("GET", `/api/collections/${name}/records?perPage=1`, undefined, token)).totalItems;
  }
  return counts;
}

test("backup.sh uploads to S3-compatible storage, and says so if the storage refuses", async (t) => {
  const lab = new Lab();
  t.after(() => lab.stop());
  const port = await freePort();
  const bucket = path.join(lab.folder, "s3/bucket");
  mkdirSync(bucket, { recursive: true });
  const args = ["serve", "s3", "--addr", `127.0.0.1:${port}`, "--auth-key", "keyid,secretkey", path.dirname(bucket)];
  const server = lab.start("rclone", path.join(TOOLS, "rclone/rclone"), args);
  const url = `http://127.0.0.1:${port}`;
  await server.ready(() =>
    fetch(url).then(
      () => true,
      () => false,
    ),
  );

  const storage = { BACKUP_TARGET: "s3://bucket/chat", BACKUP_S3_ENDPOINT: url, BACKUP_S3_ACCESS_KEY: "keyid" };
  stack.script("backup.sh", [], { env: { ...storage, BACKUP_S3_SECRET_KEY: "secretkey" } });
  const [name] = readdirSync(path.join(bucket, "chat"));
  const copy = readFileSync(path.join(stack.deploy, "backups", name));
  assert.ok(copy.equals(readFileSync(path.join(bucket, "chat", name))));

  const { status, output } = stack.script("backup.sh", [], {
    env: { ...storage, BACKUP_S3_SECRET_KEY: "wrong" },
    allowFailure: true,
  });
  assert.equal(status, 1);
  assert.match(output, /the upload of konvert-\S+ to s3:\/\/bucket\/chat failed; the file stays/);
});

test("restore.sh refuses a damaged backup, a wrong key, and an installation with data", () => {
  const env = { BACKUP_PASSPHRASE_FILE: path.join(stack.folder, "passphrase") };
  const damaged = path.join(restored.folder, "damaged.tar.gz.enc");
  const bytes = readFileSync(archive);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(damaged, bytes);
  const refuse = (of, args, env) => {
    const { status, output } = of.script("restore.sh", args, { env, allowFailure: true });
    assert.equal(status, 1, output);
    return output;
  };
  assert.match(refuse(restored, [damaged], env), /damaged|decrypted/);
  const wrong = path.join(restored.folder, "wrong");
  writeFileSync(wrong, "another\n");
  assert.match(refuse(restored, [archive], { BACKUP_PASSPHRASE_FILE: wrong }), /could not be decrypted|damaged/);
  assert.ok(!readdirSync(restored.deploy).includes(".env"), "nothing was written");
  assert.match(
    refuse(stack, [archive, "--domain", "localhost", "--email", "root@example.com"], env),
    /already holds data/,
  );
});

test("--uninstall keeps the data, and a backup becomes a fresh stack with equal counts and the same logins", async (t) => {
  const { output } = stack.script("install.sh", ["--uninstall", "--yes"]);
  assert.match(output, /The data stay: .*konvert-test_pocketbase/);
  assert.equal(stack.compose(["ps", "--quiet"]).stdout, "");
  assert.match(dockerd.docker(["volume", "ls", "--quiet"]).stdout, /konvert-test_pocketbase/);

  const env = { BACKUP_PASSPHRASE_FILE: path.join(stack.folder, "passphrase") };
  const started = Date.now();
  const told = restored.script("restore.sh", ["--domain", "localhost", "--email", "root@example.com", archive], {
    env,
  }).output;
  t.diagnostic(`restored in ${Math.round((Date.now() - started) / 1000)} s`);
  assert.match(told, /checksums match, \d+ rows in \d+ tables as in the backup/);
  assert.match(told, /The superuser exists already/);
  for (const secret of ["GATEWAY_SECRET", "REDIS_PASSWORD"]) {
    const line = new RegExp(`^${secret}=.+$`, "m");
    assert.equal(line.exec(restored.env_file())[0], line.exec(stack.env_file())[0]);
  }
  // The old token is valid, since the keys came along; the counts are equal; and both users log in.
  assert.deepEqual(await countAll(restored, superuser), counts);
  const [again, other] = [await restored.login("alice"), await restored.login("bob")];
  assert.deepEqual([again.id, other.id], [alice.id, bob.id]);
  const file = await restored.call("GET", `/api/files/users/${alice.id}/${alice.avatar}`);
  assert.equal(file.status, 200);

  const client = await restored.client(other, `room:${room}`);
  t.after(() => client.disconnect());
  await restored.create("messages", { room, author: again.id, content: "after the restore", type: "text" }, again);
  await until(() => client.messages.includes("after the restore"), "a message in the restored stack", 20_000);
});
