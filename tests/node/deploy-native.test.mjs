// install.sh --native on a server with systemd: a container whose first process is systemd.

import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { after, before, test } from "node:test";

import { until } from "../pocketbase/harness.mjs";
import { BASE, Dockerd } from "./deploy/dockerd.mjs";
import { INSTALL, Site, release } from "./deploy/stack.mjs";

const UNITS = [
  "konvert-redis.service",
  "konvert-pocketbase.service",
  "konvert-gateway.service",
  "konvert-gateway.socket",
  "konvert-nginx.service",
  "konvert-backup.service",
  "konvert-backup.timer",
];
const install = ["--native", ...INSTALL, "--pocketbase", "/pocketbase"];
let dockerd, server, site, folder, alice, bob, room, password;

const inside = (args, options) => dockerd.docker(["exec", "--env", "LANG=C.UTF-8", server, ...args], options);
const script = (name, args, options) => inside([`/release/deploy/${name}`, ...args], options);

before(async () => {
  dockerd = await Dockerd.get();
  const rights = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--security-opt",
    "seccomp=unconfined",
    "--cgroupns=host",
  ];
  const mounts = ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "--tmpfs", "/run/lock"];
  server = dockerd.docker(["run", "--detach", ...rights, ...mounts, BASE]).stdout.trim();
  folder = release();
  dockerd.docker(["cp", folder, `${server}:/release`]);
  dockerd.docker(["cp", process.env.POCKETBASE, `${server}:/pocketbase`]);
  await until(
    () => /running|degraded/.test(inside(["systemctl", "is-system-running"], { allowFailure: true }).output),
    "systemd",
    60_000,
    500,
  );
  const format = "{{.NetworkSettings.IPAddress}}";
  const address = dockerd.docker(["inspect", "--format", format, server]).stdout.trim();
  let certificate;
  site = new Site(
    `https://${address}`,
    () => (certificate ??= inside(["cat", "/etc/konvert/tls/fullchain.pem"]).stdout),
  );
});
after(async () => {
  if (server) dockerd.docker(["rm", "--force", server]);
  if (folder) rmSync(folder, { recursive: true, force: true });
  await dockerd?.stop();
});

test("install.sh --native starts the chat, and runs again without changing secrets", async () => {
  const { output } = script("install.sh", install);
  password = /user +root@example\.com\n +password +(\w+)/.exec(output)?.[1];
  assert.ok(password, output);
  const secrets = inside(["cat", "/etc/konvert/konvert.env"]).stdout;
  assert.match(secrets, /^GATEWAY_SECRET=[0-9a-f]{64}$/m);
  assert.equal((await site.call("GET", "/_/")).status, 200);
  inside(["sh", "-c", "echo 'allow 192.0.2.0/24; deny all;' > /etc/konvert/local/dashboard.conf"]);
  assert.match(script("install.sh", install).output, /The superuser exists already/);
  assert.equal((await site.call("GET", "/_/")).status, 403);
  assert.equal(inside(["cat", "/etc/konvert/konvert.env"]).stdout, secrets);

  assert.equal((await site.call("GET", "/api/health")).status, 200);
  for (const target of ["/api/gateway/keys", "/hooks/pocketbase", "/metrics"]) {
    assert.equal((await site.call("GET", target)).status, 404, target);
  }
  const plain = await fetch(`${site.url.replace("https", "http")}/x`, { redirect: "manual" });
  assert.deepEqual([plain.status, plain.headers.get("location")], [301, `${site.url}/x`]);
});

test("the units are valid, and the services run without root", () => {
  const { output } = inside(["systemd-analyze", "verify", ...UNITS.map((unit) => `/etc/systemd/system/${unit}`)]);
  assert.equal(output, "");
  for (const name of ["redis", "pocketbase", "gateway", "nginx"]) {
    const pid = inside(["systemctl", "show", "--value", "--property", "MainPID", `konvert-${name}`]).stdout.trim();
    assert.equal(inside(["stat", "--format", "%U", `/proc/${pid}`]).stdout.trim(), "konvert", name);
  }
  assert.match(inside(["systemctl", "list-timers", "--no-pager"]).stdout, /konvert-backup\.timer/);
});

test("a restart of the gateway refuses no connection and loses no message", async (t) => {
  [alice, bob] = [await site.user("alice"), await site.user("bob")];
  room = (await site.create("rooms", { name: "Room", type: "private", owner: alice.id }, alice)).id;
  await site.create("room_members", { room, user: bob.id, role: "member" }, alice);
  const client = await site.client(bob, `room:${room}`);
  t.after(() => client.disconnect());

  // Counts refused connections (curl's exit code 7) for as long as the restart takes, over the gateway's own socket.
  const loop =
    "systemctl restart konvert-gateway & restart=$!; refused=0; asked=0; " +
    "while kill -0 $restart 2>/dev/null; do curl -s -o /dev/null --max-time 20 http://127.0.0.1:8000/ || [ $? != 7 ] || refused=$((refused+1)); " +
    "asked=$((asked+1)); sleep 0.02; done; curl -s -o /dev/null http://127.0.0.1:8000/ || refused=$((refused+1)); echo $asked $refused";
  const before = inside(["systemctl", "show", "--value", "--property", "MainPID", "konvert-gateway"]).stdout;
  const [asked, refused] = inside(["bash", "-c", loop]).stdout.trim().split(" ").map(Number);
  assert.notEqual(inside(["systemctl", "show", "--value", "--property", "MainPID", "konvert-gateway"]).stdout, before);
  t.diagnostic(`${asked} connections during the restart, ${refused} refused`);
  assert.ok(asked > 3 && refused === 0, `${asked} asked, ${refused} refused`);

  for (let number = 0; number < 5; number++) {
    await site.create("messages", { room, author: alice.id, content: `message ${number}`, type: "text" }, alice);
  }
  await until(() => client.messages.length >= 5, "the messages after the restart", 30_000);
  assert.deepEqual(
    client.messages,
    [0, 1, 2, 3, 4].map((number) => `message ${number}`),
  );
});

test("the backup service, --uninstall and restore.sh --native end with the same chat", async () => {
  inside(["systemctl", "start", "konvert-backup.service"]);
  const archive = inside(["sh", "-c", "ls /var/backups/konvert/konvert-*.tar.gz"]).stdout.trim();
  const { output } = script("install.sh", ["--native", "--uninstall", "--yes"]);
  assert.match(output, /The data stay: \/var\/lib\/konvert/);
  inside(["test", "-e", "/var/lib/konvert/pocketbase/pb_data/data.db"]);
  assert.equal(inside(["sh", "-c", "ls /etc/systemd/system/konvert-* 2>/dev/null || true"]).stdout, "");

  const refused = script("restore.sh", [...install.filter((word) => word !== "--yes"), archive], {
    allowFailure: true,
  });
  assert.match(refused.output, /already holds data/);
  inside(["sh", "-c", "rm -rf /var/lib/konvert/* /etc/konvert"]);
  const told = script("restore.sh", [...install.filter((word) => word !== "--yes"), archive]).output;
  assert.match(told, /checksums match, \d+ rows in \d+ tables as in the backup/);
  const [again, superuser] = [await site.login("alice"), await site.login("root@example.com", "_superusers", password)];
  assert.equal(again.id, alice.id);
  const { totalItems } = await site.done("GET", "/api/collections/messages/records", undefined, superuser.token);
  assert.equal(totalItems, 5);
  assert.equal((await site.call("GET", "/_/")).status, 403, "the operator's own files are back");

  // As the READMEs say, for a lost password.
  const upsert = "superuser upsert root@example.com another-password --dir=/var/lib/konvert/pocketbase/pb_data";
  const places = "--hooksDir=/nonexistent --migrationsDir=/nonexistent";
  const program = "/usr/local/lib/konvert/bin/pocketbase";
  inside(["runuser", "-u", "konvert", "--", program, ...`${upsert} ${places}`.split(" ")]);
  await site.login("root@example.com", "_superusers", "another-password");
});
