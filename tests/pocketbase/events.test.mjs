// The outbox events of changes in the kanban tool: the record in the form of PocketBase's realtime, the channels, and
// records whose channels depend on another record.

import assert from "node:assert/strict";
import { renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { KANBAN, PASSWORD, PocketBase, install, sign, until } from "./harness.mjs";

const CONFIG = "pb_hooks/gateway.config.js";
const MAX_EVENT_BYTES = 256 * 1024;

/** Hooks of the application: fields that depend on the reader, and writes outside the API. */
const HOOKS = `
onRecordEnrich((e) => {
  e.next();
  const title = e.record.getString("title");
  if (title === "enrich fails") throw new Error("as a hook may");
  if (title !== "enriched") return;
  const { auth, method } = e.requestInfo;
  if (!auth) e.record.hide("points");
  e.record.withCustomData(true);
  e.record.set("computed", method + " by " + (auth ? auth.id : "nobody"));
}, "cards");
routerAdd("POST", "/x/move", (e) => { // one instance, saved again and again
  const { card, first, second } = e.requestInfo().body;
  const record = $app.findRecordById("cards", card);
  for (const board of [second, first, second]) { record.set("board", board); $app.save(record); }
  record.set("title", "not saved"); record.set("board", first);
  $app.delete(record);
  return e.noContent(204);
});
routerAdd("POST", "/x/invite", (e) => { // a new instance, saved and saved again
  const { workspace, first, second } = e.requestInfo().body;
  const record = new Record($app.findCollectionByNameOrId("memberships"), { workspace, member: first });
  $app.save(record); record.set("member", second); $app.save(record);
  return e.noContent(204);
});
routerAdd("POST", "/x/gone", (e) => { // deleted, and then saved and deleted by who does not know
  const stale = $app.findRecordById("labels", e.requestInfo().body.id);
  $app.delete($app.findRecordById("labels", stale.id));
  stale.set("name", "revived"); $app.save(stale); $app.delete(stale);
  return e.noContent(204);
});
routerAdd("POST", "/x/many", (e) => { // many at once, past the hooks
  const { table, rows } = e.requestInfo().body;
  $app.runInTransaction((tx) => rows.forEach((row) => {
    const names = Object.keys(row);
    tx.db().newQuery("INSERT INTO " + table + " (" + names.join(",") + ") VALUES (" + names.map((n) => "{:" + n + "}").join(",") + ")").bind(row).execute();
  }));
  return e.noContent(204);
});
routerAdd("POST", "/x/rollback", (e) => {
  try {
    $app.runInTransaction((tx) => { tx.delete(tx.findRecordById("cards", e.requestInfo().body.id)); throw new Error("no"); });
  } catch {}
  return e.noContent(204);
});`;

/** More paths from a comment to its board than the tool itself has. */
const RELAY = `
    card_comments: { to: ["board:{card.board}", "board:{card.list.board}", "workspace:{parent.card.board.workspace}"], trusted: true },
    audit: { to: ["topic:{what}", "board:{card.board}"], trusted: true },`;

let pb, ann, ben, workspace, boards, list;

before(async () => {
  pb = await PocketBase.start({ folder: installed() });
  [ann, ben] = [await member("ann"), await member("ben")];
  workspace = await pb.create("workspaces", { name: "W", owner: ann.id });
  boards = await Promise.all(["one", "two"].map((title) => pb.create("boards", { workspace: workspace.id, title })));
  list = await pb.create("lists", { board: boards[0].id, title: "L" });
});

after(async () => pb?.stop());

function installed() {
  return install((folder) => {
    writeFileSync(path.join(folder, "pb_hooks/app.pb.js"), HOOKS);
    const config = path.join(folder, CONFIG);
    renameSync(config, path.join(folder, "pb_hooks/kanban.config.js"));
    writeFileSync(
      config,
      `const config = require(\`\${__hooks}/kanban.config.js\`);\nObject.assign(config.relay, {${RELAY}});\nmodule.exports = config;`,
    );
  }, KANBAN);
}

async function member(name) {
  const email = `${name}@example.com`;
  await pb.create("members", { email, name, password: PASSWORD, passwordConfirm: PASSWORD });
  return pb.login(email, PASSWORD, "members");
}

const card = (data) => pb.create("cards", { list: list.id, board: boards[0].id, ...data });
const kind = ({ data, channels }) => [data && `${data.action} ${data.collection}`, ...channels];

/** The outbox's text after a sequence number, as the gateway receives it. */
async function text(last) {
  const target = `/api/gateway/events?after=${last}&limit=1000`;
  const timestamp = String(Math.floor(Date.now() / 1000));
  const headers = { "x-gateway-timestamp": timestamp, "x-gateway-signature": sign(timestamp, "GET", target, "") };
  return (await fetch(pb.url + target, { headers })).text();
}

/** The outbox's additions by `action`: {events, text, result}. */
async function added(action) {
  const { last } = await pb.events();
  const result = await action();
  const raw = await text(last);
  return { result, text: raw, events: JSON.parse(raw).events };
}

/** PocketBase's own realtime events for a user during `action`, as raw JSON. */
async function realtime(user, topics, count, action) {
  const abort = new AbortController();
  const stream = await fetch(`${pb.url}/api/realtime`, {
    signal: abort.signal,
    headers: { accept: "text/event-stream" },
  });
  const [decoder, sent] = [new TextDecoder(), []];
  let client,
    rest = "";
  const reading = (async () => {
    for await (const chunk of stream.body) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop();
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      for (const json of data) {
        if (client) sent.push(json);
        else client = JSON.parse(json).clientId;
      }
    }
  })().catch(() => {});
  await until(() => client, "PocketBase's realtime");
  assert.equal((await pb.call("POST", "/api/realtime", { clientId: client, subscriptions: topics }, user)).status, 204);
  await action();
  await until(() => sent.length >= count, `${count} events of PocketBase's realtime`);
  abort.abort();
  await reading;
  return sent;
}

describe("the record of an event", () => {
  test("is byte for byte what PocketBase's realtime sends", async () => {
    const meta =
      '{"big":9007199254740993,"f":1.10,"e":1E5,"n":null,"u":"\u2028<&>","deep":{"z":1,"a":[1,2,{"b":true}]}}';
    let sent;
    const { text } = await added(async () => {
      sent = await realtime(ann, ["cards/*", "members/*"], 4, async () => {
        const form = new FormData();
        const fields = {
          list: list.id,
          board: boards[0].id,
          title: "T <b>&",
          meta,
          pin: "a-plain-pin",
          cost: "hidden",
          points: "3.5",
        };
        for (const name in fields) form.set(name, fields[name]);
        form.append("files", new Blob(["hello"]), "héllo wörld.txt");
        const response = await fetch(`${pb.url}/api/collections/cards/records`, {
          method: "POST",
          headers: { authorization: pb.root.token },
          body: form,
        });
        const { id } = await response.json();
        await pb.update("cards", id, { "points+": 1, pin: "another-plain-pin" });
        await pb.remove("cards", id);
        await pb.update("members", ben.id, { name: "Ben" });
      });
    });
    assert.equal(sent.length, 4);
    for (const json of sent) {
      const [, record] = /^\{"record":(.*),"action":"\w+"\}$/s.exec(json);
      assert.ok(text.includes(`"record":${record}`), `the outbox has no ${json}\n${text}`);
    }
    assert.ok(text.includes(`"meta":${meta}`), "numbers stay as they were written");
    assert.ok(!text.includes("plain-pin") && !text.includes("hidden"));
  });

  test("has the result of an onRecordEnrich hook without a user", async () => {
    const { events, result } = await added(() => card({ title: "enriched", points: 42 }));
    const { record } = events[0].data;
    assert.equal(record.computed, "GET by nobody");
    assert.ok(!("points" in record));
    assert.equal(result.points, 42, "the superuser who wrote it sees more");
  });

  test("has only the id if such a hook fails; the write succeeds", async () => {
    const { events } = await added(() =>
      pb.call(
        "POST",
        "/api/collections/cards/records",
        { list: list.id, board: boards[0].id, title: "enrich fails" },
        pb.root,
      ),
    );
    const { id } = events[0].data.record;
    assert.deepEqual(events[0].data, { action: "create", collection: "cards", record: { id }, truncated: true });
    const found = await pb
      .list("cards", pb.root, `filter=${encodeURIComponent(`id="${id}"`)}&fields=id`)
      .catch(() => null);
    assert.ok(found === null || found.items.length === 1, "PocketBase's own answer is the hook's affair");
    await until(
      async () =>
        (
          await pb.call(
            "GET",
            `/api/logs?perPage=50&filter=${encodeURIComponent('message~"cannot be sent whole"')}`,
            undefined,
            pb.root,
          )
        ).body.items.length > 0,
      "a line in PocketBase's log",
      10_000,
    );
  });

  test("has no private e-mail address, not even for its owner", async () => {
    const { events } = await added(() => pb.update("members", ann.id, { name: "Ann" }));
    const [event] = events.filter((event) => event.channels.includes(`member:${ann.id}`));
    assert.equal(event.data.record.name, "Ann");
    assert.ok(!("email" in event.data.record));
  });

  test("has only the id if the record is too large", async () => {
    const { events } = await added(async () => {
      const { id } = await card({ title: "x".repeat(MAX_EVENT_BYTES / 2) });
      await pb.update("cards", id, { title: "я".repeat(MAX_EVENT_BYTES / 2) });
      await pb.update("cards", id, { title: "small again" });
      await pb.update("cards", id, { title: "", meta: { x: "a".repeat(12_000_000) } });
      await pb.remove("cards", id);
    });
    assert.deepEqual(
      events.map(({ data }) => data.truncated),
      [undefined, true, undefined, true, true],
    );
    const { id } = events[0].data.record;
    assert.deepEqual(events[1].data, { action: "update", collection: "cards", record: { id }, truncated: true });
  });

  test("is complete up to 128 levels of JSON, and has only the id beyond", async () => {
    const nested = (levels, inner = "") => "[".repeat(levels) + inner + "]".repeat(levels);
    const text = JSON.stringify(`${nested(200)}\\"${nested(200)}`);
    const flat = `[${Array(500).fill('{"a":[]}').join()}]`;
    // The record itself is the first level.
    const table = [
      [nested(127), true],
      [nested(128), false],
      [nested(9000), false],
      [nested(127, text), true],
      [flat, true],
    ];
    const { text: row, events } = await added(async () => {
      for (const [meta] of table) await card({ title: "deep", meta });
    });
    assert.deepEqual(
      events.map(({ data }) => !data.truncated),
      table.map(([, whole]) => whole),
    );
    for (const [meta, whole] of table) if (whole) assert.ok(row.includes(`"meta":${meta}`), meta);
    const [, { data }] = events;
    assert.deepEqual(data, { action: "create", collection: "cards", record: { id: data.record.id }, truncated: true });
    assert.equal(data.record.id.length, 15);
  });
});

describe("the channels of an event", () => {
  test("with invalid names are left out, counted, and logged without their content", async () => {
    const impossible = [
      "x".repeat(1019),
      "ü".repeat(510),
      "with blanks",
      "with\u00a0blanks",
      "line\nfeed",
      "\u0000",
      "tab\t",
      "\u0085",
    ];
    const possible = ["x".repeat(1018), "ümläut", "ü".repeat(509), "日本語", "😀"];
    const { events } = await added(async () => {
      for (const what of impossible) await pb.create("audit", { what });
      const { id } = await card({ title: "the audited" });
      await pb.create("audit", { what: "with blanks", card: id });
      for (const what of possible) await pb.create("audit", { what });
    });
    const dropped = events.filter((event) => event.dropped);
    assert.deepEqual(
      dropped.map((event) => event.dropped),
      Array(impossible.length + 1).fill(1),
    );
    assert.deepEqual(
      dropped.slice(0, -1).map(kind),
      impossible.map(() => [null]),
    );
    assert.deepEqual(kind(dropped.at(-1)), ["create audit", `board:${boards[0].id}`], "the other channels get it");
    assert.deepEqual(
      events.slice(-possible.length).map(kind),
      possible.map((what) => ["create audit", `topic:${what}`]),
    );
    const logged = async () =>
      (
        await pb.call(
          "GET",
          `/api/logs?perPage=50&filter=${encodeURIComponent('message~"no channel can have"')}`,
          undefined,
          pb.root,
        )
      ).body.items;
    const [line, ...more] = await until(
      async () => (await logged()).length > 0 && logged(),
      "a line in PocketBase's log",
      10_000,
    );
    assert.deepEqual(more, [], "once, not for each");
    assert.deepEqual({ ...line.data }, { collection: "audit", template: "topic:{what}" });
  });

  test("are split over several rows if there are many", async () => {
    const ids = Array.from({ length: 1201 }, (_, i) => `m${String(i).padStart(14, "0")}`);
    await pb.call("POST", "/x/many", {
      table: "members",
      rows: ids.map((id) => ({ id, email: `${id}@example.com`, tokenKey: id, password: "-" })),
    });
    const { events } = await added(() => card({ title: "everybody's", assignees: ids }));
    assert.ok(events.length > 1 && events.every((event) => event.channels.length <= 1000));
    const names = events.flatMap((event) => event.channels);
    assert.deepEqual(names, [`board:${boards[0].id}`, ...ids.map((id) => `member:${id}`)], "each once");
    assert.ok(events.every((event) => event.data.record.title === "everybody's"));
  });
});

describe("a row that cannot be delivered", () => {
  test("is named by its number, and does not delay later rows", async () => {
    const { events } = await added(async () => {
      const large = JSON.stringify({ channels: [], data: "x".repeat(17 << 20) });
      await pb.call("POST", "/x/many", { table: "_gateway_outbox", rows: [{ created: 1, event: large }] });
      await card({ title: "the next" });
    });
    assert.deepEqual(events[0], { seq: events[1].seq - 1, access: "too large" });
    assert.equal(events[1].data.record.title, "the next");
  });
});

describe("an instance that is saved again", () => {
  test("is compared with its row in the database, not with its own old values", async () => {
    const { id } = await card({ title: "the traveller" });
    const [first, second] = boards.map((board) => board.id);
    const { events } = await added(() => pb.call("POST", "/x/move", { card: id, first, second }));
    assert.deepEqual(events.map(kind), [
      ["delete cards", `board:${first}`],
      ["create cards", `board:${second}`],
      ["delete cards", `board:${second}`],
      ["create cards", `board:${first}`],
      ["delete cards", `board:${first}`],
      ["create cards", `board:${second}`],
      ["delete cards", `board:${second}`],
    ]);
    assert.equal(events.at(-1).data.record.title, "the traveller");
  });

  test("ends the access of the user it named before", async () => {
    const { events } = await added(() =>
      pb.call("POST", "/x/invite", { workspace: workspace.id, first: ben.id, second: ann.id }),
    );
    const concerned = (event) => JSON.stringify(event.access ?? []);
    const update = events.filter((event) => event.data?.collection === "memberships").at(-1);
    assert.equal(update.data.record.member, ann.id);
    const told = events.slice(1).map(concerned).join();
    assert.ok(told.includes(ben.id) && told.includes(ann.id), told);
  });

  test("adds nothing if its row is deleted", async () => {
    const label = await pb.create("labels", { board: boards[0].id, name: "l" });
    const { events } = await added(() => pb.call("POST", "/x/gone", { id: label.id }));
    assert.deepEqual(events.map(kind), [["delete labels", `board:${boards[0].id}`]]);
  });
});

describe("records whose channels depend on another record", () => {
  /** A board with a list, a card, a comment, and an answer to the comment. */
  async function tree() {
    const board = await pb.create("boards", { workspace: workspace.id, title: "tree" });
    const list = await pb.create("lists", { board: board.id, title: "L" });
    const card = await pb.create("cards", { list: list.id, board: board.id, title: "C" });
    const comment = await pb.create("card_comments", { card: card.id, text: "1" });
    const answer = await pb.create("card_comments", { card: card.id, text: "2", parent: comment.id });
    return { board, list, card, comment, answer };
  }
  const deletes = (events) =>
    events
      .filter(({ data }) => data?.action === "delete")
      .map(({ data, channels }) => [data.record.id, ...channels.toSorted()]);

  test("are deleted with it, each announced in its own channels, at any depth", async () => {
    for (const level of ["comment", "card", "list", "board"]) {
      const it = await tree();
      const { events } = await added(() =>
        pb.remove({ comment: "card_comments", card: "cards", list: "lists", board: "boards" }[level], it[level].id),
      );
      const [board, above] = [`board:${it.board.id}`, `workspace:${workspace.id}`];
      const due = [
        [it.answer.id, board, above],
        [it.comment.id, board],
      ];
      const outer = [
        [it.card.id, board],
        [it.list.id, board],
        [it.board.id, board],
      ];
      due.push(...outer.slice(0, ["comment", "card", "list", "board"].indexOf(level)));
      assert.deepEqual(deletes(events).toSorted(), due.toSorted(), level);
      assert.equal(events.at(-1).data.record.id, it[level].id, "what was deleted comes last");
    }
  });

  test("are deleted with it in a transaction with other changes, and from the top", async () => {
    const top = await pb.create("workspaces", { name: "top", owner: ann.id });
    const ids = [];
    for (const title of ["a", "b"]) {
      const board = await pb.create("boards", { workspace: top.id, title });
      const list = await pb.create("lists", { board: board.id, title });
      const card = await pb.create("cards", { list: list.id, board: board.id, title });
      ids.push([(await pb.create("card_comments", { card: card.id })).id, `board:${board.id}`]);
    }
    const { events } = await added(() => pb.remove("workspaces", top.id));
    const comments = events.filter(({ data }) => data?.collection === "card_comments");
    assert.deepEqual(deletes(comments).toSorted(), ids.toSorted());
  });

  test("move with it", async () => {
    const it = await tree();
    const { events } = await added(() => pb.update("cards", it.card.id, { board: boards[1].id }));
    const [from, to] = [`board:${it.board.id}`, `board:${boards[1].id}`];
    // The comments are still in the old board's channel, through the card's list.
    assert.deepEqual(events.slice(0, 2).map(kind), [
      ["delete cards", from],
      ["create cards", to],
    ]);
    assert.deepEqual(
      events
        .slice(2)
        .map((event) => [event.data.record.id, ...kind(event)])
        .toSorted(),
      [
        [it.answer.id, "create card_comments", to],
        [it.comment.id, "create card_comments", to],
      ].toSorted(),
    );
    const moved = await added(() => pb.update("lists", it.list.id, { board: boards[1].id }));
    assert.deepEqual(
      moved.events
        .filter(({ data }) => data.collection === "card_comments")
        .map((event) => [event.data.record.id, ...kind(event)])
        .toSorted(),
      [
        [it.answer.id, "delete card_comments", from],
        [it.comment.id, "delete card_comments", from],
      ].toSorted(),
    );
    const untouched = await added(() => pb.update("cards", it.card.id, { title: "renamed" }));
    assert.deepEqual(untouched.events.map(kind), [["update cards", to]]);
  });

  test("leave the channels of a record they no longer point to", async () => {
    const it = await tree();
    const audit = await pb.create("audit", { what: "w", card: it.card.id }); // no cascade: the relation becomes empty
    const { events } = await added(() => pb.remove("cards", it.card.id));
    const told = events.filter(({ data }) => data.record.id === audit.id).map(kind);
    assert.deepEqual(told, [
      ["delete audit", `board:${it.board.id}`],
      ["update audit", "topic:w"],
    ]);
  });

  test("are announced in one event if there are very many", async () => {
    const it = await tree();
    const rows = Array.from({ length: 1000 }, (_, i) => ({ id: `c${String(i).padStart(14, "0")}`, card: it.card.id }));
    await pb.call("POST", "/x/many", { table: "card_comments", rows });
    const { events } = await added(() => pb.update("cards", it.card.id, { board: boards[1].id }));
    const comments = events.filter(({ data }) => data.collection === "card_comments");
    assert.equal(comments.length, 1);
    assert.deepEqual(comments[0].data, { action: "reload", collection: "card_comments", record: { id: "" } });
    assert.deepEqual(comments[0].channels.slice(0, 2), [`board:${it.board.id}`, `board:${boards[1].id}`]);
    const { last } = await pb.events();
    await pb.remove("cards", it.card.id);
    assert.equal((await pb.events()).last - last, 1003, "all that go with it, and the card");
  });

  test("stay if the change is rolled back", async () => {
    const it = await tree();
    const undone = await added(() => pb.call("POST", "/x/rollback", { id: it.card.id }));
    assert.deepEqual(undone.events, []);
    const { events } = await added(() => pb.remove("card_comments", it.answer.id));
    assert.deepEqual(kind(events[0]), ["delete card_comments", `board:${it.board.id}`, `workspace:${workspace.id}`]);
  });
});
