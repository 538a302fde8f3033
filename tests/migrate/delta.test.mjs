// konvert-migrate's delta: changes and deletions in the old chat since the export.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Lab, freePort } from "../node/harness.mjs";
import { messageId, roomId, rows, userId } from "./generate.mjs";
import { Migration, sqlite, tables } from "./stage.mjs";
import { Supabase } from "./supabase.mjs";

const CHAT = { users: 120, rooms: 40, directs: 50, messages: 2500, files: 40 };
const lab = new Lab();
let supabase;

const id = (uuid) => uuid.replaceAll("-", "");

/** An export with these options, imported into a new PocketBase. */
async function fresh(name, options) {
  const pocketbase = await lab.pocketbase("http://127.0.0.1:1");
  const migration = new Migration({ folder: join(lab.folder, name), supabase, pocketbase });
  await migration.finish("export", options);
  await migration.finish(
    "import",
    options.filter((option) => option === "--no-files"),
  );
  return migration;
}

before(
  lab.explained(async () => {
    supabase = await Supabase.start(lab, freePort, CHAT);
  }),
);
after(() => lab.stop());

test("delta imports what has changed, and a repeated import keeps what users have changed here", async () => {
  const table = "kv_changes";
  await supabase.copyTable(table);
  const it = await fresh("changes", ["--table", table]);
  const [changed, edited] = [messageId(101), messageId(102)];
  supabase.sql(`
    UPDATE ${table} SET value = value || '{"content":"edited in the old chat"}' WHERE key = 'message:${changed}';
    INSERT INTO ${table} VALUES ('message:${messageId(777_777)}', '{"id":"${messageId(777_777)}","room_id":"${roomId(1)}","sender_id":"${userId(1)}","content":"the last one","type":"text","created_at":"2025-06-01T00:00:00Z"}');
    UPDATE ${table} SET value = value || '{"role":"admin"}' WHERE key = 'user:${userId(2)}';`);
  await it.pocketbase.update("messages", id(edited), { content: "edited in PocketBase" });
  await it.finish("import");
  assert.equal(
    (await it.pocketbase.call("GET", `/api/collections/messages/records/${id(edited)}`, undefined, it.pocketbase.root))
      .body.content,
    "edited in PocketBase",
  );
  // A member leaves, a reaction goes, a request is answered.
  const member = JSON.parse([...rows(supabase.chat)].find(([key]) => key === `room:${roomId(1)}`)[1]).members[1];
  supabase.sql(`
    UPDATE ${table} SET value = jsonb_set(value, '{members}', (value->'members') - '${member}') WHERE key = 'room:${roomId(1)}';
    UPDATE ${table} SET value = value || '{"reactions":{}}' WHERE key = 'message:${messageId(103)}';
    DELETE FROM ${table} WHERE key LIKE 'friend_request:${userId(7)}:%';`);
  const has = (table, where) => sqlite(it.pocketbase, [`SELECT count(*) FROM ${table} WHERE ${where}`])[0][0];
  const gone = [
    ["room_members", `room = '${id(roomId(1))}' AND user = '${id(member)}'`],
    ["reactions", `message = '${id(messageId(103))}'`],
    ["friend_requests", `\`from\` = '${id(userId(7))}' AND status = 'pending'`],
  ];
  for (const one of gone) assert.ok(has(...one) > 0, one.join());
  const started = Date.now();
  const delta = await it.finish("delta", ["--table", table]);
  assert.ok(Date.now() - started < 60_000);
  assert.deepEqual(delta.summary.import.kinds.messages, { created: 1, updated: 1, unchanged: 1, rejected: 0 });
  for (const one of gone) assert.equal(has(...one), 0, one.join());
  assert.ok(has("room_members", `room = '${id(roomId(1))}'`) > 0);
  const content = (n) => sqlite(it.pocketbase, [`SELECT content FROM messages WHERE id = '${id(n)}'`])[0][0];
  assert.equal(content(changed), "edited in the old chat");
  assert.equal(content(messageId(777_777)), "the last one");
  assert.equal(content(edited), "edited in PocketBase");
  assert.deepEqual(sqlite(it.pocketbase, [`SELECT role FROM users WHERE id = '${id(userId(2))}'`]), [["admin"]]);
});

test("an interrupted delta is not forgotten: the next delta imports the same changes", async () => {
  const table = "kv_interrupted";
  const options = ["--table", table, "--no-files"];
  await supabase.copyTable(table);
  const it = await fresh("interrupted", options);
  const late = messageId(101);
  supabase.sql(`
    UPDATE ${table} SET value = value || '{"content":"edited late"}' WHERE key = 'message:${late}';
    DELETE FROM ${table} WHERE key = 'message:${messageId(102)}';`);
  const failed = await it.run("delta", options, { POCKETBASE_ADMIN_PASSWORD: "wrong" });
  assert.equal(failed.code, 2, failed.stderr);
  await it.finish("delta", options);
  const content = `SELECT content FROM messages WHERE id = '${id(late)}'`;
  assert.deepEqual(sqlite(it.pocketbase, [content]), [["edited late"]]);
  const gone = `SELECT count(*) FROM messages WHERE id = '${id(messageId(102))}'`;
  assert.deepEqual(sqlite(it.pocketbase, [gone]), [[0]]);
  const nothing = await it.finish("delta", options);
  assert.equal(nothing.summary.import?.total.updated ?? 0, 0);
});

test("a delta after deletions and other changes leaves what a new import leaves", async () => {
  const table = "kv_deletions";
  const options = ["--table", table];
  await supabase.copyTable(table);
  const it = await fresh("deletions", options);
  const source = new Map(rows(supabase.chat));
  const hidden = [...source.keys()].find((key) => key.startsWith("dm_hidden:"));
  const direct = [...source.keys()].filter((key) => key.startsWith("dm:")).at(-1);
  const [user, room, replied, poll] = [userId(20), roomId(2), messageId(13), messageId(430)];
  const pairOf = (key) => key.split(":").slice(1, 3).map(id).sort().join(":");
  const has = (name, where) => sqlite(it.pocketbase, [`SELECT count(*) FROM ${name} WHERE ${where}`])[0][0];
  const gone = [
    ["users", `id = '${id(user)}'`],
    ["messages", `author = '${id(user)}'`],
    ["room_members", `user = '${id(user)}'`],
    ["rooms", `id = '${id(room)}'`],
    ["messages", `room = '${id(room)}'`],
    ["rooms", `direct_key = '${pairOf(direct)}'`],
    ["messages", `id = '${id(replied)}'`],
    ["messages", `reply_to = '${id(replied)}'`],
    ["polls", `message = '${id(poll)}'`],
    ["messages", `id = '${id(poll)}' AND type = 'poll'`],
    ["users", `id = '${id(userId(4))}' AND blocked NOT IN ('', '[]')`],
    ["pins", `room = '${id(roomId(1))}'`],
    ["rooms", `id = '${id(roomId(1))}' AND pinned_message != ''`],
    ["achievements", `user = '${id(userId(9))}' AND achievement = 'talkative'`],
    ["room_keys", `user = '${id(userId(8))}'`],
    ["friend_requests", `'${id(userId(30))}' IN (\`from\`, \`to\`) AND status = 'accepted'`],
    ["room_members", `hidden_at != '' AND room IN (SELECT id FROM rooms WHERE direct_key = '${pairOf(hidden)}')`],
  ];
  for (const one of gone) assert.ok(has(...one) > 0, one.join());
  supabase.sql(`
    DELETE FROM ${table} WHERE key IN ('user:${user}', 'room:${room}', '${direct}', 'message:${replied}', '${hidden}');
    DELETE FROM ${table} WHERE key LIKE 'poll:%' AND value->>'message_id' = '${poll}';
    UPDATE ${table} SET value = value - 'blocked_users' WHERE key = 'user:${userId(4)}';
    UPDATE ${table} SET value = value - 'room_keys' WHERE key = 'user:${userId(8)}';
    UPDATE ${table} SET value = value - 'pinned_message_ids' - 'pinned_message_id' WHERE key = 'room:${roomId(1)}';
    UPDATE ${table} SET value = value #- '{achievements,talkative}' WHERE key = 'achievements:${userId(9)}';
    UPDATE ${table} SET value = jsonb_set(value, '{friends}', coalesce((value->'friends') - '${userId(30)}', '[]'))
      WHERE key IN ('user:${userId(29)}', 'user:${userId(31)}');
    UPDATE ${table} SET value = value - 'friends' WHERE key = 'user:${userId(30)}';
    DELETE FROM auth.users WHERE id = '${user}';`);
  const delta = await it.finish("delta", options);
  assert.ok(delta.summary.import.removed >= 6, JSON.stringify(delta.summary.import));
  assert.equal(delta.summary.import.kept, 0);
  for (const one of gone) assert.equal(has(...one), 0, one.join());
  const other = await lab.pocketbase("http://127.0.0.1:1");
  const again = new Migration({ folder: it.folder, supabase, pocketbase: other });
  await again.finish("import");
  assert.deepEqual(tables(it.pocketbase), tables(again.pocketbase));
  const verified = await it.run("verify");
  assert.equal(verified.code, 0, JSON.stringify(verified.summary.verify?.first_differences ?? verified.stderr));
});

test("a delta keeps a room in which users have written here, although the old chat no longer has the room", async () => {
  const table = "kv_kept";
  const options = ["--table", table, "--no-files"];
  await supabase.copyTable(table);
  const it = await fresh("kept", options);
  const room = id(roomId(1));
  const author = sqlite(it.pocketbase, [`SELECT user FROM room_members WHERE room = '${room}' LIMIT 1`])[0][0];
  const live = { room, author, content: "written here", type: "text" };
  await it.pocketbase.create("messages", live, it.pocketbase.root);
  supabase.sql(`DELETE FROM ${table} WHERE key = 'room:${roomId(1)}';`);
  const delta = await it.finish("delta", options);
  assert.equal(delta.summary.import.kept, 1);
  assert.equal(delta.summary.import.removed, 0);
  const stays = `SELECT count(*) FROM messages WHERE room = '${room}' AND content = 'written here'`;
  assert.deepEqual(sqlite(it.pocketbase, [stays]), [[1]]);
});
