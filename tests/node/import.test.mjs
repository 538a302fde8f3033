// Clients of the new chat during an import: told once at its end to load their rooms again, and not told of its rows.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { Lab, freePort, next, until } from "./harness.mjs";
import { accountEmailOf, passwordOf, roomId, rows, userId } from "../migrate/generate.mjs";
import { Migration, sqlite } from "../migrate/stage.mjs";
import { Supabase } from "../migrate/supabase.mjs";

const CHAT = { users: 40, rooms: 8, directs: 6, messages: 400 };
const lab = new Lab();
let supabase, pocketbase, gateway, migration;

before(
  lab.explained(async () => {
    const port = await freePort();
    supabase = await Supabase.start(lab, freePort, CHAT);
    pocketbase = await lab.pocketbase(`http://127.0.0.1:${port}`);
    gateway = await lab.gateway("gateway", { port, pocketbase });
    migration = new Migration({ folder: join(lab.folder, "export"), supabase, pocketbase });
    await migration.finish("export", ["--no-files"]);
    await migration.finish("import", ["--no-files"]);
  }),
);
after(() => lab.stop());

test("an import says at its end that rooms have changed, and nothing of its rows", async (t) => {
  const room = roomId(1).replaceAll("-", "");
  const [, value] = [...rows(CHAT)].find(([key]) => key === `room:${roomId(1)}`);
  const member = JSON.parse(value)
    .members.map((uuid) => Array.from({ length: CHAT.users }, (_, n) => n).find((n) => userId(n) === uuid))
    .find((n) => accountEmailOf(n) && n % 41 !== 6 && n % 43 !== 7 && n % 59 !== 10 && n % 67 !== 11 && n % 71 !== 12);
  const user = await pocketbase.login(accountEmailOf(member), passwordOf(member));
  const client = new Centrifuge(gateway.websocket, { websocket: WebSocket, token: user.token });
  t.after(() => client.disconnect());
  client.connect();
  const subscription = client.newSubscription(`room:${room}`);
  const received = [];
  subscription.on("publication", ({ data }) => received.push(data));
  const subscribed = next(subscription, "subscribed");
  subscription.subscribe();
  await subscribed;
  // Rows to write: messages and members of this room differ from the export.
  sqlite(pocketbase, [
    `UPDATE messages SET content = 'changed', updated = '2020-01-01 00:00:00.000Z' WHERE room = '${room}'`,
    `UPDATE rooms SET name = 'changed' WHERE id = '${room}'`,
  ]);
  const reload = next(subscription, "publication", ({ data }) => data.action === "reload", 30_000);
  const imported = await migration.finish("import", ["--no-files", "--force"]);
  assert.ok(imported.summary.import.kinds.messages.updated > 10);
  assert.equal(imported.summary.import.kinds.rooms.updated, 1);
  await reload;
  await pocketbase.create("messages", { room, author: user.id, content: "after", type: "text" }, user);
  await until(() => received.some(({ record }) => record?.content === "after"), "the message after the import", 30_000);
  const kinds = received.map(({ action, collection }) => `${action} ${collection}`);
  assert.equal(kinds.filter((kind) => kind === "reload messages").length, 1, kinds.join());
  assert.deepEqual(
    kinds.filter((kind) => !["reload messages", "create messages"].includes(kind)),
    [],
  );
});
