// The second application: a kanban tool with a schema and rules unlike the chat's, on a real PocketBase beside a
// gateway, seen through the published `centrifuge` package.

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { KANBAN, PASSWORD } from "../pocketbase/harness.mjs";
import { Lab, freePort, until } from "./harness.mjs";

const FIFTY = Array.from({ length: 50 }, (_, i) => `kind${i}`);

/** The application with fifty more collections, each relayed to its board. */
function withFifty() {
  const folder = mkdtempSync(path.join(tmpdir(), "konvert-kanban-"));
  cpSync(KANBAN, folder, { recursive: true });
  const names = JSON.stringify(FIFTY);
  const schema = `migrate((app) => {
    const boards = app.findCollectionByNameOrId("boards");
    for (const name of ${names}) {
      const board = { type: "relation", name: "board", collectionId: boards.id, maxSelect: 1 };
      app.save(new Collection({ type: "base", name, fields: [board, { type: "text", name: "text" }], viewRule: "", listRule: "" }));
    }
  });`;
  writeFileSync(path.join(folder, "pb_migrations/1795219270_fifty.js"), schema);
  const config = path.join(folder, "pb_hooks/gateway.config.js");
  const relayed = FIFTY.map((name) => `    ${name}: ["board:{board}"],`).join("\n");
  writeFileSync(config, readFileSync(config, "utf8").replace("  relay: {", `  relay: {\n${relayed}`));
  return folder;
}

const lab = new Lab();
let pb, gateway, people;

before(
  lab.explained(async () => {
    const port = await freePort();
    pb = await lab.pocketbase(`http://127.0.0.1:${port}`, withFifty());
    gateway = await lab.gateway("gateway", { port, pocketbase: pb });
    people = {};
    for (const name of ["ann", "ben", "cat"]) people[name] = await member(name);
  }),
);
after(() => lab.stop());

const check = (name, body) => test(name, lab.explained(body));

async function member(name) {
  const email = `${name}@example.com`;
  await pb.create("members", { email, name, password: PASSWORD, passwordConfirm: PASSWORD, plan: "free" });
  return pb.login(email, PASSWORD, "members");
}

/** A workspace of Ann's with Ben as a member, a board visible to both, and a list. */
async function team() {
  const { ann, ben } = people;
  const workspace = await pb.create("workspaces", { name: "W", owner: ann.id });
  const membership = await pb.create("memberships", { workspace: workspace.id, member: ben.id, role: "editor" });
  const board = await pb.create("boards", { workspace: workspace.id, title: "B", visibility: "workspace" });
  const list = await pb.create("lists", { board: board.id, title: "L" });
  return { workspace, membership, board, list };
}

/** A user's live subscription: `events` collects the publications, `state()` and `end` tell its state. */
async function listen(t, user, channel) {
  const client = new Centrifuge(gateway.websocket, {
    token: user.token,
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
  });
  t.after(() => client.disconnect());
  client.connect();
  const subscription = client.newSubscription(channel);
  const it = { events: [], end: null, joins: 0, recovered: null };
  subscription.on("publication", ({ data }) => it.events.push(data));
  subscription.on("unsubscribed", ({ code }) => (it.end = code));
  subscription.on("subscribed", ({ recovered }) => {
    it.joins += 1;
    it.recovered = recovered;
  });
  client.on("disconnected", ({ code }) => (it.end ??= code));
  subscription.subscribe();
  await until(() => it.joins > 0 || it.end !== null, `${channel} to be answered`);
  return it;
}

const short = ({ action, collection }) => `${action} ${collection}`;

describe("the four kinds of write arrive once and in order", () => {
  check("REST: files, numbers, relations; and deletes", async (t) => {
    const { board, list } = await team();
    const it = await listen(t, people.ben, `board:${board.id}`);
    const card = await pb.create("cards", {
      list: list.id,
      board: board.id,
      title: "C",
      assignees: [people.ben.id],
      meta: { deep: [1, { x: null }] },
      points: 1.5,
    });
    await pb.update("cards", card.id, { "assignees+": people.ann.id, "points+": 2 });
    await pb.remove("cards", card.id);
    await until(() => it.events.length >= 3, "three events");
    assert.deepEqual(it.events.map(short), ["create cards", "update cards", "delete cards"]);
    assert.deepEqual(it.events[1].record.assignees, [people.ben.id, people.ann.id]);
    assert.equal(it.events[1].record.points, 3.5);
    assert.ok(!("cost" in it.events[0].record), "hidden fields stay hidden");
  });

  check("batch", async (t) => {
    const { board } = await team();
    const it = await listen(t, people.ben, `board:${board.id}`);
    const requests = Array.from({ length: 200 }, (_, i) => [
      "POST",
      FIFTY[i % 50],
      { board: board.id, text: String(i) },
    ]);
    assert.equal((await pb.batch(requests)).status, 200);
    await until(() => it.events.length >= 200, "all of the batch", 10_000);
    assert.deepEqual(
      it.events.map(({ record }) => record.text),
      requests.map((_, i) => String(i)),
    );
  });

  check("a transaction of the application's own code, and one that is rolled back", async (t) => {
    const { workspace, board, list } = await team();
    const other = await pb.create("boards", { workspace: workspace.id, title: "B2", visibility: "workspace" });
    const card = await pb.create("cards", { list: list.id, board: board.id, title: "C" });
    const [here, there] = [
      await listen(t, people.ben, `board:${board.id}`),
      await listen(t, people.ben, `board:${other.id}`),
    ];
    const body = { card: card.id, from: board.id, to: other.id, list: list.id };
    assert.equal((await pb.call("POST", "/kanban/rollback", body, pb.root)).status, 200);
    assert.equal((await pb.call("POST", "/kanban/transaction", body, pb.root)).status, 200);
    await until(() => here.events.length >= 5 && there.events.length >= 2, "the events of the transaction");
    assert.deepEqual(here.events.map(short), [
      "delete cards",
      "create cards",
      "create cards",
      "delete cards",
      "update cards",
    ]);
    assert.deepEqual(there.events.map(short), ["create cards", "delete cards"]);
    assert.equal(here.events.at(-1).record.title, "after all");
  });

  check("cascade: a list takes its cards and their comments along", async (t) => {
    const { board, list } = await team();
    const card = await pb.create("cards", { list: list.id, board: board.id, title: "C" });
    const comment = await pb.create("card_comments", { card: card.id, author: people.ben.id, text: "first" });
    await pb.create("card_comments", { card: card.id, author: people.ben.id, text: "answer", parent: comment.id });
    const it = await listen(t, people.ben, `board:${board.id}`);
    await pb.remove("lists", list.id);
    await until(() => it.events.length >= 4, "a list, a card and two comments");
    assert.deepEqual(it.events.map(short).sort(), [
      "delete card_comments",
      "delete card_comments",
      "delete cards",
      "delete lists",
    ]);
  });

  check("fifty collections, each by its own rule", async (t) => {
    const { board } = await team();
    const it = await listen(t, people.ben, `board:${board.id}`);
    for (const name of FIFTY) await pb.create(name, { board: board.id, text: "x" });
    await until(() => it.events.length >= 50, "fifty events");
    assert.deepEqual(
      it.events.map(({ collection }) => collection),
      FIFTY,
    );
  });
});

describe("access ends within a second, for the affected user only", () => {
  /** Causes that end Ben's access to a board visible to members. */
  const causes = {
    "membership deleted": ({ membership }) => pb.remove("memberships", membership.id),
    "membership given to somebody else": ({ membership }) =>
      pb.update("memberships", membership.id, { member: people.cat.id }),
    "membership moved to another workspace": async ({ membership }) => {
      const { id } = await pb.create("workspaces", { name: "elsewhere", owner: people.cat.id });
      await pb.update("memberships", membership.id, { workspace: id });
    },
    "board made private": ({ board }) => pb.update("boards", board.id, { visibility: "private" }),
    "board moved to another workspace": async ({ board }) => {
      const { id } = await pb.create("workspaces", { name: "elsewhere", owner: people.ann.id });
      await pb.update("boards", board.id, { workspace: id });
    },
    "board deleted": ({ board }) => pb.remove("boards", board.id),
    "workspace deleted": ({ workspace }) => pb.remove("workspaces", workspace.id),
    "the member suspended": () => pb.update("members", people.ben.id, { suspended: true }),
  };
  for (const [cause, end] of Object.entries(causes)) {
    check(cause, async (t) => {
      const { board, ...rest } = await team();
      const [ben, ann] = [
        await listen(t, people.ben, `board:${board.id}`),
        await listen(t, people.ann, `board:${board.id}`),
      ];
      assert.deepEqual([ben.end, ann.end], [null, null]);
      await end({ board, ...rest });
      await until(() => ben.end !== null, "the end of Ben's subscription", 10_000);
      const gone = cause.endsWith("deleted") && !cause.startsWith("membership");
      if (!gone) {
        await pb.create("labels", { board: board.id, name: "after" });
        await until(() => ann.events.some(({ record }) => record.name === "after"), "Ann to hear on");
        assert.equal(ann.end, null);
      }
      assert.ok(!ben.events.some(({ record }) => record.name === "after"), "Ben hears nothing more");
      await pb.update("members", people.ben.id, { suspended: false });
    });
  }

  check("a guest is added to a private board, and removed", async (t) => {
    const { board } = await team();
    await pb.update("boards", board.id, { visibility: "private", guests: [people.cat.id] });
    const cat = await listen(t, people.cat, `board:${board.id}`);
    assert.equal(cat.end, null);
    await pb.update("boards", board.id, { guests: [] });
    await until(() => cat.end !== null, "the end");
    const again = await listen(t, people.cat, `board:${board.id}`);
    assert.equal(again.end, 103);
  });

  check("a rule that closes all boards", async (t) => {
    const { board } = await team();
    const it = await listen(t, people.ben, `board:${board.id}`);
    const { body } = await pb.call("GET", "/api/collections/boards", undefined, pb.root);
    const rule = (viewRule, listRule) => pb.call("PATCH", "/api/collections/boards", { viewRule, listRule }, pb.root);
    try {
      assert.equal((await rule(`@request.auth.id = "nobody"`, `@request.auth.id = "nobody"`)).status, 200);
      await until(() => it.end !== null, "the end");
      assert.equal(it.end, 2103);
    } finally {
      await rule(body.viewRule, body.listRule);
    }
  });
});

describe("records that depend on others, and records that are large", () => {
  check("a moved card takes its comments along; deletions with it are announced", async (t) => {
    const { workspace, board, list } = await team();
    const other = await pb.create("boards", { workspace: workspace.id, title: "B2", visibility: "workspace" });
    const card = await pb.create("cards", { list: list.id, board: board.id, title: "C" });
    const comment = await pb.create("card_comments", { card: card.id, text: "1" });
    await pb.create("card_comments", { card: card.id, text: "2", parent: comment.id });
    const [from, to] = [
      await listen(t, people.ben, `board:${board.id}`),
      await listen(t, people.ben, `board:${other.id}`),
    ];
    await pb.update("cards", card.id, { board: other.id });
    await pb.remove("cards", card.id);
    await until(() => to.events.length >= 6, "all of it");
    assert.deepEqual(from.events.map(short), ["delete cards", "delete card_comments", "delete card_comments"]);
    const moved = ["create cards", "create card_comments", "create card_comments"];
    assert.deepEqual(to.events.map(short), [...moved, "delete card_comments", "delete card_comments", "delete cards"]);
    assert.deepEqual([from.joins, to.joins], [1, 1]);
  });

  check("a record too large for any queue arrives as its id, and disconnects no client", async (t) => {
    const { workspace, board } = await team();
    const [it, list] = [await listen(t, people.ben, `board:${board.id}`), await listen(t, people.ben, "board-updates")];
    const title = "x".repeat(1_500_000);
    const large = await pb.create("boards", { workspace: workspace.id, title, visibility: "workspace" });
    await pb.update("boards", board.id, { title });
    await pb.update("boards", board.id, { title: "small again" });
    await until(() => it.events.length >= 2 && list.events.length >= 3, "what follows", 15_000);
    const id = (action, id) => ({ action, collection: "boards", record: { id }, truncated: true });
    assert.deepEqual([it.events[0], it.events[1].record.title], [id("update", board.id), "small again"]);
    assert.deepEqual(list.events.slice(0, 2), [id("create", large.id), id("update", board.id)]);
    const elsewhere = await pb.create("workspaces", { name: "elsewhere", owner: people.cat.id });
    const hidden = await pb.create("boards", { workspace: elsewhere.id, title, visibility: "workspace" });
    await pb.create("memberships", { workspace: elsewhere.id, member: people.ben.id, role: "editor" });
    await until(() => list.events.length >= 4, "the board that comes into sight", 15_000);
    assert.deepEqual(list.events[3], id("join", hidden.id));
    assert.deepEqual([it.joins, list.joins, it.end, list.end], [1, 1, null, null]);
  });
});

describe("changes of schema and data beneath the gateway", () => {
  check("a guard that is renamed, and renamed back", async (t) => {
    const { board } = await team();
    const [it, list] = [await listen(t, people.ben, `board:${board.id}`), await listen(t, people.ben, "board-updates")];
    const rename = (from, name) => pb.call("PATCH", `/api/collections/${from}`, { name }, pb.root);
    assert.equal((await rename("boards", "panels")).status, 200);
    await pb.update("panels", board.id, { title: "renamed" });
    await until(() => it.events.some(({ record }) => record.title === "renamed"), "the event on the board");
    await until(() => list.events.some(({ record }) => record.title === "renamed"), "the event in board-updates");
    assert.equal(it.events.at(-1).collection, "panels");
    const newcomer = await listen(t, people.ann, `board:${board.id}`);
    assert.equal(newcomer.end, null);
    assert.equal((await rename("panels", "boards")).status, 200);
    await pb.update("boards", board.id, { title: "back" });
    await until(() => newcomer.events.some(({ record }) => record.title === "back"), "the event after it");
    assert.deepEqual([it.end, list.end], [null, null]);
  });

  check("after a restored backup, subscribers are told to reload", async (t) => {
    const { board } = await team();
    await pb.update("boards", board.id, { title: "kept" });
    const name = "before.zip";
    assert.equal((await pb.call("POST", "/api/backups", { name }, pb.root)).status, 204);
    const [it, list] = [await listen(t, people.ben, `board:${board.id}`), await listen(t, people.ben, "board-updates")];
    await pb.update("boards", board.id, { title: "lost with the restore" });
    await until(() => it.events.length > 0 && list.events.length > 0, "the events before the restore");
    const { boot } = await pb.events();
    assert.equal((await pb.call("POST", `/api/backups/${name}/restore`, {}, pb.root)).status, 204);
    const now = async () => (await pb.events().catch(() => ({}))).boot;
    await until(async () => ![undefined, boot].includes(await now()), "PocketBase to come back", 20_000);
    await until(() => it.joins > 1 && list.joins > 1, "both to subscribe again", 20_000);
    assert.deepEqual([it.recovered, list.recovered], [false, false]);
    assert.deepEqual([it.end, list.end], [null, null]);
    await pb.update("boards", board.id, { title: "goes on" });
    for (const { events } of [it, list]) await until(() => events.at(-1).record.title === "goes on", "what follows");
  });
});
