// konvert-migrate moves a chat with every kind of oddity from PostgreSQL and PostgREST into PocketBase.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Lab, freePort } from "../node/harness.mjs";
import { accountEmailOf, contentOf, messageId, passwordOf, roomId, rows, userId } from "./generate.mjs";
import { Migration, PUBLIC, sqlite, tables } from "./stage.mjs";
import { Supabase, TABLE, jwt } from "./supabase.mjs";

const CHAT = { users: 300, rooms: 60, directs: 80, messages: 6000, files: 60 };
const lab = new Lab();
let supabase, pocketbase, migration, exported, imported;

const id = (uuid) => uuid.replaceAll("-", "");
const fresh = async (name, folder = join(lab.folder, name)) =>
  new Migration({ folder, supabase, pocketbase: await lab.pocketbase("http://127.0.0.1:1") });

before(
  lab.explained(async () => {
    supabase = await Supabase.start(lab, freePort, CHAT);
    pocketbase = await lab.pocketbase("http://127.0.0.1:1");
    migration = new Migration({ folder: join(lab.folder, "export"), supabase, pocketbase });
    exported = await migration.finish("export");
    imported = await migration.finish("import");
  }),
);
after(() => lab.stop());

test("the export has every row of the table, and is one JSON object", () => {
  assert.equal(exported.code, 0, exported.stderr);
  assert.equal(exported.summary.export.table_rows, supabase.rowCount);
  assert.equal(exported.summary.export.counted_rows, supabase.rowCount);
  const document = JSON.parse(readFileSync(join(migration.folder, "export.json"), "utf8"));
  assert.equal(document.users.length, CHAT.users);
  assert.equal(document.accounts.length, CHAT.users);
  assert.equal(document.files.length, CHAT.files);
  // The generator's rows, as PostgreSQL keeps them.
  const wanted = new Map([...rows(supabase.chat)].filter(([key]) => key.startsWith("message:")));
  assert.equal(document.messages.length, wanted.size);
  for (const { key, value } of document.messages) assert.deepEqual(value, JSON.parse(wanted.get(key)), key);
  for (const file of document.files) {
    const content = readFileSync(join(migration.folder, file.value.local));
    assert.equal(createHash("sha256").update(content).digest("hex"), file.value.sha256);
  }
});

test("keys that see nothing are refused, and all keys of the service work", async () => {
  const anon = await migration.run("export", [], { SUPABASE_SERVICE_ROLE_KEY: jwt("anon") });
  assert.equal(anon.code, 2);
  assert.match(anon.stderr, /role "anon".*service_role/);
  const other = new Migration({ folder: join(lab.folder, "jwt"), supabase, pocketbase });
  const old = await other.finish("export", ["--no-files"], { SUPABASE_SERVICE_ROLE_KEY: jwt("service_role") });
  assert.equal(old.summary.fingerprint !== undefined, true);
  assert.deepEqual(old.summary.sections.messages, exported.summary.sections.messages);
});

test("every row is accounted for", () => {
  assert.equal(imported.code, 1, "the chat has rows that cannot be imported");
  const { balance, sections } = imported.summary.import;
  const [all, good, rejected, unmapped, indexes] = balance.replaceAll(",", "").match(/\d+/g).map(Number);
  assert.equal(all, supabase.rowCount);
  assert.equal(all, good + rejected + unmapped + indexes);
  assert.equal(migration.lines("unmapped.jsonl").length, unmapped);
  assert.equal(unmapped, 2 + CHAT.users / 10);
  assert.equal(sections.messages.rows, CHAT.messages);
  const rejects = migration.lines("rejects.jsonl");
  for (const reason of [
    /room .* is gone/,
    /no content/,
    /another row has the id/,
    /value is null/,
    /text without JSON/,
    /65537 characters/,
    /unknown type/,
    /deleted in the old chat/,
  ]) {
    assert.ok(
      rejects.some((reject) => reason.test(reject.reason)),
      `${reason}`,
    );
  }
});

test("messages keep content, author, time, reply, mentions, reactions and encrypted text", async () => {
  const source = new Map([...rows(supabase.chat)].filter(([key]) => key.startsWith("message:")));
  const plain = (n) => JSON.parse(source.get(`message:${messageId(n)}`));
  for (const n of [101, 103, 105, 106, 111, 117, 155, 1003, 4999]) {
    const [old, now] = [
      plain(n),
      (
        await pocketbase.call(
          "GET",
          `/api/collections/messages/records/${id(messageId(n))}`,
          undefined,
          pocketbase.root,
        )
      ).body,
    ];
    assert.equal(now.content, old.content);
    assert.equal(now.author, id(old.sender_id));
    assert.equal(now.created, old.created_at.replace("T", " "));
    assert.equal(now.reply_to, old.reply_to ? id(old.reply_to) : "");
    assert.deepEqual(now.mentions, (old.mentions ?? []).map(id));
  }
  const [old] = [plain(103)];
  const list = await pocketbase.list("reactions", pocketbase.root, `filter=message%3D%22${id(messageId(103))}%22`);
  const pairs = new Set(
    Object.entries(old.reactions).flatMap(([emoji, users]) => users.map((user) => `${emoji} ${id(user)}`)),
  );
  assert.deepEqual(new Set(list.items.map(({ emoji, user }) => `${emoji} ${user}`)), pairs);
  const later = await pocketbase.call(
    "GET",
    `/api/collections/messages/records/${id(messageId(10))}`,
    undefined,
    pocketbase.root,
  );
  assert.equal(later.body.reply_to, id(messageId(11)), "a reply to a later message");
});

test("dates of all three forms, forwards, edits, deletions and odd types arrive", () => {
  const one = (n) =>
    sqlite(pocketbase, [
      `SELECT created, edited_at, forwarded, deleted, type, content, author, updated FROM messages WHERE id = '${id(messageId(n))}'`,
    ])[0];
  const at = (n) => new Date(Date.UTC(2025, 0, 1) + n * 1000).toISOString().replace("T", " ");
  for (const n of [220, 222]) assert.equal(one(n)[0], at(n));
  assert.equal(one(252)[2], 1);
  assert.equal(one(254)[3], 1);
  assert.equal(one(256)[1], new Date(Date.UTC(2025, 0, 1) + 2e9 + 256).toISOString().replace("T", " "));
  assert.equal(one(240)[4], "text");
  assert.deepEqual(
    one(238)
      .slice(4, 7)
      .filter((_, i) => i !== 1),
    ["system", ""],
  );
  assert.equal(one(202)[5], "12345.5");
  assert.equal(JSON.parse(one(204)[5]).text, "an object");
  assert.match(one(214)[5], /ноль\u200bширины \u200d\ufeff 👩‍👩‍👧‍👦🏳️‍🌈 \u202eсправа/);
  assert.equal([...one(16)[5]].length, 65_536);
});

test("every user with a bcrypt hash logs in with the old password", async () => {
  let logins = 0;
  for (let n = 0; n < CHAT.users; n++) {
    const banned = n % 41 === 6 || n % 59 === 10;
    if (
      !accountEmailOf(n) ||
      banned ||
      n % 67 === 11 ||
      n % 71 === 12 ||
      (n % 43 === 7 && Date.UTC(2025, 0, 1) + 4e11 > Date.now())
    )
      continue;
    const login = await pocketbase.login(accountEmailOf(n), passwordOf(n));
    assert.equal(login.id, id(userId(n)));
    logins++;
  }
  assert.ok(logins > CHAT.users * 0.8);
  const wrong = await pocketbase.call("POST", "/api/collections/users/auth-with-password", {
    identity: accountEmailOf(1),
    password: "wrong",
  });
  assert.equal(wrong.status, 400);
});

test("an import leaves one outbox row: everything has changed", () => {
  const found = sqlite(pocketbase, ["SELECT event FROM _gateway_outbox"]).map(([event]) => JSON.parse(event));
  assert.equal(found.length, 1, JSON.stringify(found).slice(0, 500));
  assert.deepEqual(found[0].data, { action: "reload", collection: "messages", record: { id: "" } });
  assert.deepEqual(found[0].access, [{ cause: "rules" }]);
  assert.ok(found[0].channels.includes(`room:${id(roomId(1))}`));
});

test("a second export and a second import change nothing", async () => {
  const before = tables(pocketbase);
  const again = await migration.finish("export", ["--again"]);
  assert.equal(again.summary.fingerprint, exported.summary.fingerprint);
  const { total } = (await migration.finish("import")).summary.import;
  assert.equal(total.created + total.updated, 0);
  assert.deepEqual(tables(pocketbase), before);
});

test("the verification finds no difference, and logs in", async () => {
  const verified = await migration.run("verify", [], { MIGRATE_LOGIN: `${accountEmailOf(1)}:${passwordOf(1)}` });
  const { verify } = verified.summary;
  assert.equal(verified.code, 0, JSON.stringify(verify?.first_differences ?? verified.stderr));
  assert.equal(verify.logins, 1);
  assert.ok(verify.encrypted > 500 && verify.password_hashes > 250 && verify.users_sampled >= 5);
  assert.equal(verify.files, CHAT.files);
  const wrong = await migration.run("verify", ["--no-files"], { MIGRATE_LOGIN: `${accountEmailOf(1)}:nonsense` });
  assert.equal(wrong.code, 1);
});

test("the verification finds each of twenty-four kinds of damage", async () => {
  const it = await fresh("export", migration.folder);
  await it.finish("import");
  const pick = (table, where = "1") =>
    sqlite(it.pocketbase, [`SELECT id FROM ${table} WHERE ${where} ORDER BY id LIMIT 1`])[0][0];
  const found = (expected) => (line) => Object.entries(expected).every(([name, value]) => line[name] === value);
  const set = (kind, field, value, where) => {
    const row = pick(kind, where);
    // Accepted requests come from the users' lists of friends.
    const names = kind === "friend_requests" ? ["friends", kind] : [kind];
    const finds = (line) => names.includes(line.kind) && line.id === row && line.field === field;
    return [`UPDATE ${kind} SET \`${field}\` = ${value} WHERE id = '${row}'`, finds];
  };
  const gone = (kind, where) => {
    const row = pick(kind, where);
    return [`DELETE FROM ${kind} WHERE id = '${row}'`, found({ kind, id: row, problem: "missing" })];
  };
  const text = "type = 'text' AND content != ''";
  const damages = [
    () => set("messages", "content", "content || ' '", `${text} AND content NOT LIKE '%ciphertext%'`),
    () => set("messages", "content", "replace(content, '\"iv\"', '\"IV\"')", "content LIKE '%ciphertext%'"),
    () => set("messages", "created", "'2020-01-01 00:00:00.000Z'", `${text} AND id > '2'`),
    () => set("messages", "author", "''", `${text} AND author != '' AND id > '3'`),
    () => set("messages", "reply_to", "''", "reply_to != ''"),
    () => set("messages", "mentions", "'[]'", "mentions != '[]'"),
    () => set("messages", "deleted", "TRUE", `${text} AND deleted = FALSE AND id > '5'`),
    () => set("messages", "room", `'${pick("rooms")}'`, `${text} AND id > '6' AND room != '${pick("rooms")}'`),
    () => gone("messages", `${text} AND id > '7'`),
    () => [
      `INSERT INTO messages (id, room, content, type, created, updated) VALUES ('abcdefabcdefabc', '${pick("rooms")}', 'forged', 'text', '2025-01-01 00:00:00.000Z', '2025-01-01 00:00:00.000Z')`,
      (line) => line.kind === "messages" && /before the export/.test(line.problem),
    ],
    () => gone("reactions"),
    () => set("reactions", "emoji", "'💩'", "id > '8'"),
    () => gone("room_members", "id > 'b'"),
    () => set("room_members", "role", "'owner'", "role = 'member' AND id > 'c'"),
    () => set("room_members", "last_read", "''", "last_read != ''"),
    () => set("users", "email", "'thief@example.com'", "id > '1'"),
    () => [
      `UPDATE users SET password = '$2a$04$abcdefghijklmnopqrstuuO3x9QJrqWZBqz7y5yq0yqgq0yqgq0yq' WHERE id = '${id(userId(2))}'`,
      found({ kind: "users", id: id(userId(2)), field: "hash" }),
    ],
    () => set("users", "public_key", "public_key || 'A'", "public_key != ''"),
    () => set("users", "role", "'admin'", "role = 'user' AND id > '4'"),
    () => set("rooms", "type", "'public'", "type = 'private' AND deleted = FALSE"),
    () => gone("pins"),
    () => set("polls", "counts", "'[9, 9]'"),
    () => set("friend_requests", "status", "'rejected'"),
    () => set("room_keys", "encrypted_key", "'AAAA'"),
  ].map((make) => make());
  sqlite(
    it.pocketbase,
    damages.map(([sql]) => sql),
  );
  const verified = await it.run("verify", ["--no-files"]);
  assert.equal(verified.code, 1);
  const lines = it.lines("verify.jsonl");
  for (const [sql, finds] of damages) assert.ok(lines.some(finds), `not found: ${sql}`);
  assert.ok(lines.some(({ kind, problem }) => kind === "rules" || problem === "differs"));
});

test("files arrive with their content, messages name the new addresses, avatars belong to their users", async () => {
  const [[content]] = sqlite(pocketbase, [
    `SELECT content FROM messages WHERE type = 'image' AND content LIKE '%/api/files/%' LIMIT 1`,
  ]);
  assert.ok(content.startsWith(PUBLIC), content);
  const answer = await fetch(content.replace(PUBLIC, pocketbase.url));
  assert.equal(answer.status, 200);
  const name = sqlite(pocketbase, ["SELECT count(*) FROM users WHERE avatar != ''"])[0][0];
  assert.ok(name > 0);
  const one = sqlite(pocketbase, [`SELECT id, avatar FROM users WHERE avatar != '' AND id = '${id(userId(0))}'`])[0];
  const avatar = Buffer.from(
    await (await fetch(`${pocketbase.url}/api/files/users/${one[0]}/${one[1]}`)).arrayBuffer(),
  );
  assert.ok(avatar.equals(contentOf(0)));
});

test("killed at ten random moments and resumed, the result is the same byte for byte", async () => {
  const it = await fresh("killed");
  let kills = 0;
  const endure = async (command, milliseconds) => {
    for (let round = 0; round < 5; round++) {
      const child = it.start(command);
      // Early rounds are killed early: a fast machine would otherwise end before the moment comes.
      const latest = (milliseconds * (round + 1)) / 5;
      const timer = setTimeout(() => child.kill("SIGKILL"), 20 + Math.random() * latest);
      const ended = await child.ended;
      clearTimeout(timer);
      if (ended.signal === "SIGKILL") kills++;
    }
    return it.finish(command);
  };
  const second = await endure("export", 250);
  assert.deepEqual(second.summary.sections.messages, exported.summary.sections.messages);
  assert.deepEqual(second.summary.sections.users, exported.summary.sections.users);
  await endure("import", 500);
  assert.ok(kills >= 5, `only ${kills} runs were killed`);
  const [killed, whole] = [tables(it.pocketbase), tables(pocketbase)];
  // Names of files differ between two exports, and so do dates that only the export gives.
  for (const name of [
    "room_members",
    "reactions",
    "pins",
    "polls",
    "poll_votes",
    "friend_requests",
    "notifications",
    "achievements",
    "room_keys",
  ]) {
    assert.equal(killed[name][0], whole[name][0], name);
  }
  const again = await fresh("export", migration.folder);
  await endureImport(again);
  assert.deepEqual(tables(again.pocketbase), whole);
  assert.equal((await again.run("verify")).code, 0);
});

async function endureImport(it) {
  for (let round = 0; round < 5; round++) {
    const child = it.start("import");
    const timer = setTimeout(() => child.kill("SIGKILL"), 50 + Math.random() * 1500);
    await child.ended;
    clearTimeout(timer);
  }
  await it.finish("import");
}

test("temporary failures and rate limits of the old project are overcome", async () => {
  let count = 0;
  supabase.fault = () => (++count % 4 === 0 ? [429, 503, 500][count % 3] : null);
  try {
    const it = new Migration({ folder: join(lab.folder, "faults"), supabase, pocketbase });
    const ended = await it.finish("export");
    assert.equal(ended.code, 0, ended.stdout);
    assert.deepEqual(ended.summary.sections.messages, exported.summary.sections.messages);
  } finally {
    supabase.fault = () => null;
  }
});

/** Number of a user who can log in and who has written in a room of theirs; many authors have left their rooms. */
async function memberWhoWrites() {
  const query = "SELECT DISTINCT author FROM messages JOIN room_members USING (room) WHERE author = user";
  const writers = sqlite(pocketbase, [query]).flat();
  for (let user = 0; user < CHAT.users; user++) {
    if (!writers.includes(id(userId(user))) || !accountEmailOf(user)) continue;
    const login = await pocketbase.login(accountEmailOf(user), passwordOf(user)).catch(() => null);
    if (login) return user;
  }
  throw new Error("no user of the chat has written in a room of theirs");
}

test("a dry run writes nothing; --only imports one user; --force restores", async () => {
  const it = await fresh("export", migration.folder);
  const dry = await it.finish("import", ["--dry-run"]);
  assert.ok(dry.summary.import.kinds.messages.created > 5000);
  assert.deepEqual(sqlite(it.pocketbase, ["SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM messages)"]), [
    [0],
  ]);
  const user = await memberWhoWrites();
  const only = await it.finish("import", ["--only", accountEmailOf(user).toUpperCase()]);
  assert.equal(only.code, 0, JSON.stringify(only.summary.import?.rejected_reasons ?? only.stderr));
  const authors = sqlite(it.pocketbase, ["SELECT DISTINCT author FROM messages"]);
  assert.deepEqual(authors, [[id(userId(user))]]);
  assert.equal((await it.pocketbase.login(accountEmailOf(user), passwordOf(user))).id, id(userId(user)));
  await it.finish("import");
  assert.equal((await it.run("verify")).code, 0);
  sqlite(it.pocketbase, [
    `UPDATE messages SET content = 'x', updated = '2030-01-01 00:00:00.000Z' WHERE id = '${id(messageId(103))}'`,
  ]);
  assert.equal((await it.finish("import")).summary.import.total.updated, 0);
  assert.equal((await it.finish("import", ["--force"])).summary.import.total.updated, 1);
  assert.equal((await it.run("verify")).code, 0);
  // A user has reacted in PocketBase as in the old chat: the old reaction would be the same once more.
  const [[reaction]] = sqlite(it.pocketbase, ["SELECT id FROM reactions ORDER BY id LIMIT 1"]);
  sqlite(it.pocketbase, [`UPDATE reactions SET id = 'reactedhere1234' WHERE id = '${reaction}'`]);
  const { total, kinds } = (await it.finish("import")).summary.import;
  assert.deepEqual([total.created, total.updated, kinds.reactions.rejected], [0, 0, 1]);
  const rejects = it.lines("rejects.jsonl");
  assert.ok(rejects.some(({ id, reason }) => id === reaction && /same unique fields/.test(reason)));
});

test("writes of live users are relayed during an import", async () => {
  const it = await fresh("export", migration.folder);
  const user = await it.pocketbase.user("live");
  const room = await it.pocketbase.create("rooms", { name: "Live", type: "private", owner: user.id }, user);
  const before = (await it.pocketbase.events()).newest ?? 0;
  const importing = it.finish("import");
  let written = 0;
  let running = true;
  importing.finally(() => (running = false));
  while (running) {
    await it.pocketbase.create(
      "messages",
      { room: room.id, author: user.id, content: `live ${written++}`, type: "text" },
      user,
    );
  }
  await importing;
  assert.ok(written > 3, `${written} messages during the import`);
  const [[relayed]] = sqlite(it.pocketbase, [
    `SELECT count(*) FROM _gateway_outbox WHERE event LIKE '%"content":"live %'`,
  ]);
  assert.equal(relayed, written, `outbox rows since ${before}`);
});

test("auto exports, imports and verifies, after one question", async () => {
  const it = await fresh("auto");
  const asked = await it.run("auto");
  assert.equal(asked.code, 2);
  assert.match(asked.stderr, /--yes/);
  assert.deepEqual(sqlite(it.pocketbase, ["SELECT count(*) FROM users"]), [[0]]);
  const ended = await it.run("auto", ["--yes"]);
  assert.equal(ended.code, 1, ended.stderr);
  assert.equal(ended.summary.verify.differences, 0);
});

test("a mapping file moves a chat of another layout", async () => {
  supabase.sql(`CREATE TABLE kv_other (key text PRIMARY KEY, value jsonb NOT NULL); GRANT SELECT ON kv_other TO service_role;
    INSERT INTO kv_other SELECT replace(key, 'user:', 'person:'), value FROM ${TABLE} WHERE key LIKE 'user:%' LIMIT 5;
    INSERT INTO kv_other SELECT 'group:' || (value->>'id'), value FROM ${TABLE} WHERE key = 'room:${roomId(1)}';
    INSERT INTO kv_other VALUES ('line:${roomId(1)}:m1', '{"body":"hello","who":"${userId(1)}","when":1735689600000}'), ('line:${roomId(1)}:m2', '"{\\"body\\":\\"text in text\\",\\"when\\":1735689601000}"');
    NOTIFY pgrst, 'reload schema';`);
  await supabase.serves("kv_other");
  const mapping = join(lab.folder, "mapping.toml");
  writeFileSync(
    mapping,
    `
[[map]]
prefix = "person:"
section = "users"
key = ["id"]
[[map]]
prefix = "group:"
section = "rooms"
key = ["id"]
[[map]]
prefix = "line:"
section = "messages"
key = ["room_id", "id"]
fields = { body = "content", who = "sender_id", when = "created_at" }
`,
  );
  const it = await fresh("mapped");
  const args = ["--table", "kv_other", "--mapping", mapping, "--no-files"];
  const ended = await it.finish("export", args);
  assert.equal(ended.summary.sections.messages.rows, 2);
  await it.finish("import", ["--no-files"]);
  assert.deepEqual(sqlite(it.pocketbase, ["SELECT content, created FROM messages ORDER BY created"]), [
    ["hello", "2025-01-01 00:00:00.000Z"],
    ["text in text", "2025-01-01 00:00:01.000Z"],
  ]);
});

test("users without a usable hash log in once through the old project", async () => {
  const asked = [];
  const old = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks));
    asked.push({ target: request.url, ...body });
    const good = body.password === "the old password";
    response.writeHead(good ? 200 : 400, { "content-type": "application/json" });
    response.end(
      JSON.stringify(
        good ? { access_token: "x", user: { email: body.email } } : { code: 400, error_code: "invalid_credentials" },
      ),
    );
  });
  old.listen(0, "127.0.0.1");
  await once(old, "listening");
  process.env.KONVERT_OLD_AUTH_URL = `http://127.0.0.1:${old.address().port}`;
  try {
    const it = await fresh("export", migration.folder);
    await it.finish("import", ["--no-files"]);
    const login = (password) =>
      it.pocketbase.call("POST", "/api/collections/users/auth-with-password", {
        identity: accountEmailOf(11),
        password,
      });
    assert.equal((await login("wrong")).status, 400);
    assert.equal((await login("the old password")).status, 200);
    assert.deepEqual(
      asked.map(({ target, email }) => [target, email]),
      Array(2).fill(["/auth/v1/token?grant_type=password", accountEmailOf(11)]),
    );
    assert.equal((await login("the old password")).status, 200);
    assert.equal((await login("wrong")).status, 400);
    assert.equal(asked.length, 2, "from the second login on, PocketBase checks the password");
    assert.equal((await it.finish("import")).summary.import.kinds.users.updated, 0);
    assert.equal((await login("the old password")).status, 200, "a repeated import keeps the new hash");
  } finally {
    delete process.env.KONVERT_OLD_AUTH_URL;
    old.close();
  }
});

test("a damaged export is refused", async () => {
  const it = new Migration({ folder: join(lab.folder, "damaged"), supabase, pocketbase });
  await it.finish("export", ["--no-files"]);
  const path = join(it.folder, "export.json");
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.replace("привет", "ПРИВЕТ"));
  const altered = await it.run("import");
  assert.equal(altered.code, 2);
  assert.match(altered.stderr, /does not match its checksum/);
  writeFileSync(path, text.slice(0, text.length / 2));
  assert.equal((await it.run("import")).code, 2);
});
