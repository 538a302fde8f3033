// backup.sh and restore.sh of an installation with Docker, as in deploy.test.mjs.

import assert from "node:assert/strict";
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";

import { freePort, until } from "../pocketbase/harness.mjs";
import { Dockerd, TOOLS, run } from "./deploy/dockerd.mjs";
import { INSTALL, Stack } from "./deploy/stack.mjs";
import { Lab } from "./harness.mjs";

/** restore.sh has no --yes. */
const PLACE = INSTALL.filter((word) => word !== "--yes");
let dockerd, stack, restored, alice, bob, room, archive, counts, superuser;

before(async () => {
  dockerd = await Dockerd.get();
  stack = await Stack.make(dockerd, { name: "konvert-source", subnet: "172.30.254.0/24" });
  restored = await Stack.make(dockerd, { name: "konvert-restored", subnet: "172.30.252.0/24" });
  superuser = await stack.install();
  [alice, bob] = [await stack.user("alice"), await stack.user("bob")];
  room = (await stack.create("rooms", { name: "Room", type: "private", owner: alice.id }, alice)).id;
  await stack.create("room_members", { room, user: bob.id, role: "member" }, alice);
  for (let number = 0; number < 25; number++) {
    const message = { room, author: [alice, bob][number % 2].id, content: `message ${number}`, type: "text" };
    await stack.create("messages", message, [alice, bob][number % 2]);
  }
});
after(async () => {
  for (const one of [stack, restored]) one?.remove();
  await dockerd?.stop();
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
  assert.ok(counts.messages === 25 && counts.users === 2, JSON.stringify(counts));
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

test("restore.sh refuses a damaged backup, a wrong key, and an installation with data, which goes on", async () => {
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
  // With another image of PocketBase, a start would replace the running container.
  appendFileSync(path.join(stack.deploy, "operator/operator.pb.js"), "// changed\n");
  const running = stack.container("pocketbase");
  assert.match(refuse(stack, [archive, ...PLACE], env), /already holds data/);
  assert.equal(stack.container("pocketbase"), running);
  assert.equal((await stack.call("GET", "/api/health")).status, 200);
});

test("--uninstall keeps the data, and a backup becomes a fresh stack with equal counts and the same logins", async (t) => {
  const identity = path.join(stack.folder, "identity");
  const recipient = /Public key: (age1\w+)/.exec(run("age-keygen", ["--output", identity]).output)[1];
  const backup = stack.script("backup.sh", [], { env: { BACKUP_AGE_RECIPIENT: recipient } }).output;
  const aged = path.join(stack.deploy, "backups", /konvert-\w+\.tar\.gz\.age/.exec(backup)[0]);
  assert.match(readFileSync(aged).subarray(0, 21).toString(), /^age-encryption\.org/);

  const { output } = stack.script("install.sh", ["--uninstall", "--yes"]);
  assert.match(output, /The data stay: .*konvert-source_pocketbase/);
  assert.equal(stack.compose(["ps", "--quiet"]).stdout, "");
  assert.match(dockerd.docker(["volume", "ls", "--quiet"]).stdout, /konvert-source_pocketbase/);

  // A cron job has no locale.
  const settings = path.join(stack.deploy, ".env");
  appendFileSync(settings, "LANGUAGE_OF_MESSAGES=ru\n");
  assert.match(stack.script("backup.sh", [], { allowFailure: true }).output, /Служба pocketbase не работает/);

  const env = { BACKUP_AGE_IDENTITY_FILE: identity };
  // The data of removed containers count, and nothing is written before they are found.
  renameSync(settings, `${settings}.away`);
  const refused = stack.script("restore.sh", [...PLACE, aged], { env, allowFailure: true });
  assert.match(refused.output, /The Docker volume konvert-source_pocketbase already holds data/);
  assert.ok(!readdirSync(stack.deploy).includes(".env"));
  renameSync(`${settings}.away`, settings);

  // Docker's reason is shown, and the next try succeeds.
  dockerd.docker(["network", "create", "--subnet", restored.env.EDGE_SUBNET, "konvert-foreign"]);
  const failed = restored.script("restore.sh", [...PLACE, aged], { env, allowFailure: true });
  dockerd.docker(["network", "rm", "konvert-foreign"]);
  assert.equal(failed.status, 1);
  assert.match(failed.output, /overlaps[\s\S]*could not be created[\s\S]*EDGE_SUBNET/);
  const started = Date.now();
  const told = restored.script("restore.sh", [...PLACE, aged], {
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
