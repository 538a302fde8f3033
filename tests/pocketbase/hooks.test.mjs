// The gateway's hooks in a real PocketBase: outbox, delivery, routes, refusals at start.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Intake, PocketBase, freePort, install, run, sign, until } from "./harness.mjs";

/** A function that replaces text in an installed file. */
const edit = (file, from, to) => (folder) => {
  const name = path.join(folder, file);
  const text = readFileSync(name, "utf8");
  const changed = text.replaceAll(from, to);
  assert.notEqual(changed, text, `${file} has no ${from}`);
  writeFileSync(name, changed);
};

const CONFIG = "pb_hooks/gateway.config.js";
const OUTBOX = "pb_migrations/1795219200_gateway_outbox.js";
const text = (room, author, content = "hello") => ({ room: room.id, author: author.id, content, type: "text" });

let intake, pb, ann, bob, room;

/** Ann, Bob, and a private room of Ann's. */
async function people(server) {
  const ann = await server.user("ann");
  const bob = await server.user("bob");
  const room = await server.create("rooms", { name: "private", type: "private", owner: ann.id }, ann);
  return { ann, bob, room };
}

/** The outbox's additions by `action`, with kinds as "action collection". */
async function added(action) {
  const { last } = await pb.events();
  const result = await action();
  const { events } = await pb.events(last);
  return { result, events, kinds: events.map(({ data }) => `${data.action} ${data.collection}`) };
}

before(async () => {
  intake = await Intake.start();
  pb = await PocketBase.start({ gatewayUrl: intake.url });
  ({ ann, bob, room } = await people(pb));
});

after(async () => {
  await pb?.stop();
  intake?.stop();
});

describe("outbox", () => {
  test("a created room comes with its owner's membership, in this order", async () => {
    const { events, kinds, result } = await added(() =>
      pb.create("rooms", { name: "new", type: "public", owner: ann.id }, ann),
    );
    assert.deepEqual(kinds, ["create rooms", "create room_members"]);
    assert.deepEqual(
      events.map((e) => e.channels),
      [[`room:${result.id}`], [`room:${result.id}`]],
    );
    assert.deepEqual(events[0].data.record, result);
    assert.equal(events[1].data.record.role, "owner");
  });

  test("a create, an update and a delete have a row each", async () => {
    const { events, kinds } = await added(async () => {
      const { id } = await pb.create("messages", text(room, ann), ann);
      await pb.update("messages", id, { content: "changed" }, ann);
      await pb.remove("messages", id, ann);
    });
    // A message that is deleted within seconds counts towards an achievement.
    assert.deepEqual(kinds, ["create messages", "update messages", "delete messages", "create achievements"]);
    assert.deepEqual(
      events.slice(0, 3).map((e) => e.data.record.content),
      ["hello", "changed", "changed"],
    );
  });

  test("a committed batch has all its rows, a rolled back one has none", async () => {
    const good = ["POST", "messages", text(room, ann)];
    const bad = ["POST", "messages", { ...text(room, ann), type: "no such type" }];
    const failed = await added(() => pb.batch([good, good, bad], ann));
    assert.equal(failed.result.status, 400);
    assert.deepEqual(failed.kinds, []);

    const committed = await added(() => pb.batch([good, good, good], ann));
    assert.equal(committed.result.status, 200);
    assert.equal(committed.kinds.length, 3);
  });

  test("a write that the database refuses has no row, and PocketBase's own answer", async () => {
    const message = await pb.create("messages", text(room, ann), ann);
    const reaction = { message: message.id, user: ann.id, emoji: "👍" };
    await pb.create("reactions", reaction, ann);
    const { kinds, result } = await added(() => pb.call("POST", "/api/collections/reactions/records", reaction, ann));
    assert.equal(result.status, 400);
    assert.equal(result.body.data.emoji.code, "validation_not_unique");
    assert.deepEqual(kinds, []);
  });

  test("a dotted path leads to the room, also in a cascade that has removed the message", async () => {
    const message = await pb.create("messages", text(room, ann), ann);
    const reaction = await added(() => pb.create("reactions", { message: message.id, user: ann.id, emoji: "🎉" }, ann));
    assert.deepEqual(reaction.events[0].channels, [`room:${room.id}`]);

    const removed = await added(() => pb.remove("messages", message.id, ann));
    assert.deepEqual(removed.kinds, ["delete reactions", "delete messages"]);
    assert.deepEqual(
      removed.events.map((e) => e.channels),
      [[`room:${room.id}`], [`room:${room.id}`]],
    );
  });

  test("deleting a room deletes its contents, in one transaction", async () => {
    const doomed = await pb.create("rooms", { name: "doomed", type: "private", owner: ann.id }, ann);
    await pb.create("messages", text(doomed, ann), ann);
    await pb.create("messages", text(doomed, ann), ann);
    const { events, kinds } = await added(() => pb.remove("rooms", doomed.id, ann));
    assert.deepEqual(kinds.toSorted(), ["delete messages", "delete messages", "delete room_members", "delete rooms"]);
    assert.ok(events.every((e) => e.channels[0] === `room:${doomed.id}`));
  });

  test("a record that moves leaves one channel and enters the other", async () => {
    const other = await pb.create("rooms", { name: "other", type: "private", owner: ann.id }, ann);
    const message = await pb.create("messages", text(room, ann, "before"), ann);
    const { events } = await added(() => pb.update("messages", message.id, { room: other.id, content: "after" }));
    assert.deepEqual(
      events.map((e) => [e.data.action, e.channels, e.data.record.content]),
      [
        ["delete", [`room:${room.id}`], "before"],
        ["create", [`room:${other.id}`], "after"],
      ],
    );
  });

  test("content passes byte for byte, posted and pulled", async () => {
    const contents = [
      `quotes " ' \` \\ and a lone "`,
      "line\u2028paragraph\u2029next\u0085\ttab\r\nnewline",
      "<b>&amp;</b> {{x}} [[y]] {:z} \u0001\u001f\u007f",
      "👩‍👩‍👧‍👦 e\u0301 ﷽ \u202e \ufeff 𝒳",
      '{"seq":1,"channels":["room:x"]},{"a":',
      "я".repeat(64 << 10),
    ];
    const { last } = await pb.events();
    for (const content of contents) {
      const stored = await pb.create("messages", text(room, ann, content), ann);
      assert.equal(stored.content, content);
    }
    const pulled = (await pb.events(last)).events.map((e) => e.data.record.content);
    const posted = intake.events.filter((e) => e.seq > last).map((e) => e.data.record.content);
    assert.deepEqual(pulled, contents);
    assert.deepEqual(posted, contents);
  });

  test("the numbers have no gap, after all of the above", async () => {
    const { events, last } = await pb.events();
    assert.deepEqual(
      events.map((e) => e.seq),
      Array.from({ length: last }, (_, i) => i + 1),
    );
  });
});

describe("delivery", () => {
  test("posts are signed and in order", () => {
    assert.ok(intake.posts.length > 0);
    assert.ok(intake.posts.every((post) => post.signed && post.target === "/hooks/pocketbase"));
    const seqs = intake.events.map((e) => e.seq);
    assert.deepEqual(
      seqs,
      seqs.toSorted((a, b) => a - b),
    );
  });

  test("a posted event equals the pulled event", async () => {
    const { last } = await pb.events();
    await pb.create("messages", text(room, ann), ann);
    const { events } = await pb.events(last);
    assert.deepEqual(intake.events.at(-1), events[0]);
  });

  test("a batch of 50 makes one post", async () => {
    const posts = intake.posts.length;
    const { result } = await added(() => pb.batch(Array(50).fill(["POST", "messages", text(room, ann)]), ann));
    assert.equal(result.status, 200);
    assert.deepEqual(
      intake.posts.slice(posts).map((post) => post.events.length),
      [50],
    );
  });

  test("concurrent writes are all posted", async () => {
    const { last } = await pb.events();
    await Promise.all(Array.from({ length: 60 }, () => pb.create("messages", text(room, ann), ann)));
    const all = (await pb.events(last)).events.map((e) => e.seq);
    assert.equal(all.length, 60);
    const posted = () => new Set(intake.events.map((e) => e.seq));
    assert.ok(all.every((seq) => posted().has(seq)));
  });

  test("a failing gateway never fails a write, and is left alone for a while", async () => {
    intake.mode = "refuse";
    await pb.create("messages", text(room, ann), ann);
    const posts = intake.posts.length;
    await pb.create("messages", text(room, ann), ann);
    assert.equal(intake.posts.length, posts, "the breaker is open");
    intake.mode = "answer";
  });

  test("a call by the gateway does not end the pause, since the other direction may still fail", async () => {
    const { last, delivery } = await pb.events();
    assert.deepEqual(delivery, { url: intake.url, error: "the gateway answered 500" });
    const posts = intake.posts.length;
    await pb.events(last); // "I have everything up to `last`"
    await pb.create("messages", text(room, ann), ann);
    assert.equal(intake.posts.length, posts, "the breaker is open");
  });

  test("a successful probe ends the pause, and events that the gateway has are not posted again", async () => {
    const { last } = await pb.events();
    await pb.events(last);
    const { body } = await pb.gateway("POST", "/api/gateway/probe", {});
    assert.deepEqual(body, { url: intake.url, error: "" });
    assert.deepEqual(intake.posts.at(-1), { events: [], signed: true, target: "/hooks/pocketbase" });
    assert.deepEqual((await pb.events()).delivery, body);
    await pb.create("messages", text(room, ann), ann);
    assert.deepEqual(
      intake.posts.at(-1).events.map((e) => e.seq),
      [last + 1],
    );
  });

  test("an address of PocketBase instead of the gateway is named as such", async () => {
    const other = await PocketBase.start({ gatewayUrl: pb.url });
    try {
      const { body } = await other.gateway("POST", "/api/gateway/probe", {});
      assert.equal(
        body.error,
        "this address answers like PocketBase and not like the gateway (404); set GATEWAY_URL to the gateway's address",
      );
    } finally {
      await other.stop();
    }
  });

  test("a cursor from the future does not silence the delivery", async () => {
    const { last } = await pb.events(1_000_000);
    await pb.create("messages", text(room, ann), ann);
    assert.deepEqual(
      intake.posts.at(-1).events.map((e) => e.seq),
      [last + 1],
    );
  });

  test("a hung gateway costs one write its timeout and the others nothing", async () => {
    intake.mode = "hang";
    const timed = async () => {
      const start = performance.now();
      await pb.create("messages", text(room, ann), ann);
      return performance.now() - start;
    };
    const times = await Promise.all(Array.from({ length: 10 }, timed));
    const slow = times.filter((ms) => ms > 900);
    assert.equal(slow.length, 1, `of ${times.map(Math.round)}`);
    assert.ok(slow[0] < 2000);
    for (let i = 0; i < 20; i++) assert.ok((await timed()) < 500, "while the breaker is open");
    const failed = (await pb.gateway("POST", "/api/gateway/probe", {})).body;
    assert.match(failed.error, /^Post "http:.*(deadline exceeded|Timeout)[\s\S]*$/);
    assert.ok(failed.error.length < 200 && !failed.error.includes("GoError"), failed.error);
    assert.deepEqual((await pb.events()).delivery, failed);
    intake.mode = "answer";
    await pb.events((await pb.events()).last);
    assert.equal((await pb.gateway("POST", "/api/gateway/probe", {})).body.error, "");
  });

  test("the pauses are in the log, one line each", async () => {
    const lines = await until(
      async () => {
        const { body } = await pb.call(
          "GET",
          `/api/logs?filter=${encodeURIComponent("message~'gateway:'")}`,
          undefined,
          pb.root,
        );
        return body.totalItems >= 4 && body.items.length % 2 === 0 && body.items;
      },
      "the log to be written",
      10_000,
    );
    const kinds = lines.toSorted((a, b) => a.created.localeCompare(b.created)).map((line) => line.message);
    const paused = "gateway: delivery paused, since no gateway took the post; the changes stay in the outbox";
    const pairs = kinds.map((_, i) => (i % 2 === 0 ? paused : "gateway: delivery works again"));
    assert.deepEqual(kinds, pairs); // refused, back, hung, back
    assert.ok(lines.every((line) => line.level === 4 && line.data.url === intake.url));
  });

  test("after a restart, old events are not posted", async () => {
    intake.mode = "refuse";
    for (let i = 0; i < 3; i++) await pb.create("messages", text(room, ann), ann);
    await pb.stop({ keep: true });
    intake.mode = "answer";
    intake.posts = [];
    pb = await PocketBase.start({ gatewayUrl: intake.url, folder: pb.folder });
    await pb.create("messages", text(room, ann), ann);
    assert.deepEqual(
      intake.events.map((e) => e.seq),
      [(await pb.events()).last],
    );
  });
});

describe("routes", () => {
  const routes = [
    ["POST", "/api/gateway/keys", { users: [] }],
    ["POST", "/api/gateway/authorize", { checks: [] }],
    ["POST", "/api/gateway/visible", { channel: "room-updates", user: "nobody", after: "", rows: 1 }],
    ["POST", "/api/gateway/view", { channel: "room-updates", checks: [] }],
    ["GET", "/api/gateway/events?after=0&limit=1"],
    ["POST", "/api/gateway/confirm", { seq: 0 }],
    ["POST", "/api/gateway/probe", {}],
  ];

  for (const [method, target, body] of routes) {
    test(`${target} requires a valid signature`, async () => {
      const now = Math.floor(Date.now() / 1000);
      const cases = [
        [{}, 200],
        [{ headers: {} }, 401, "missing_signature"],
        [{ secret: "another secret of the same, sufficient length" }, 401, "bad_signature"],
        [{ headers: { "x-gateway-timestamp": String(now), "x-gateway-signature": "00" } }, 401, "bad_signature"],
        [{ timestamp: now - 290 }, 200],
        [{ timestamp: now - 310 }, 401, "stale_timestamp"],
        [{ timestamp: now + 310 }, 401, "stale_timestamp"],
        [{ timestamp: "soon" }, 401, "stale_timestamp"],
        [{ headers: { authorization: pb.root.token } }, 401, "missing_signature"],
      ];
      for (const [options, status, code] of cases) {
        const answer = await pb.gateway(method, target, body, options);
        assert.equal(answer.status, status, JSON.stringify(options));
        assert.equal(answer.body.error?.code, code);
        if (code) assert.ok(answer.body.error.message.length > 20);
      }
    });
  }

  test("a signature is valid for one target and one body only", async () => {
    const body = JSON.stringify({ seq: 0 });
    const timestamp = String(Math.floor(Date.now() / 1000));
    const of = (target, text) => ({
      headers: { "x-gateway-timestamp": timestamp, "x-gateway-signature": sign(timestamp, "POST", target, text) },
    });
    const confirm = "/api/gateway/confirm";
    assert.equal((await pb.gateway("POST", confirm, body, of(confirm, body))).status, 200);
    assert.equal((await pb.gateway("POST", confirm, body, of("/api/gateway/keys", body))).status, 401);
    assert.equal((await pb.gateway("POST", confirm, body, of(confirm, `${body} `))).status, 401);
  });

  test('malformed requests get "bad request"', async () => {
    const many = (entry) => Array(501).fill(entry);
    const bad = [
      ["POST", "/api/gateway/keys", "not json"],
      ["POST", "/api/gateway/keys", "null"],
      ["POST", "/api/gateway/keys", {}],
      ["POST", "/api/gateway/keys", { users: [1] }],
      ["POST", "/api/gateway/keys", { users: many("x") }],
      ["POST", "/api/gateway/authorize", { checks: [{ user: "x" }] }],
      ["POST", "/api/gateway/authorize", { checks: [null] }],
      ["POST", "/api/gateway/authorize", { checks: many({ user: "x", channel: "room:x" }) }],
      ["POST", "/api/gateway/visible", { channel: "room", user: "x", after: "", rows: 1 }],
      ["POST", "/api/gateway/visible", { channel: "room-updates", user: 1, after: "", rows: 1 }],
      ["POST", "/api/gateway/visible", { channel: "room-updates", user: "x", rows: 1 }],
      ["POST", "/api/gateway/visible", { channel: "room-updates", user: "x", after: "", rows: 1e9 }],
      ["POST", "/api/gateway/view", { channel: "constructor", checks: [] }],
      ["POST", "/api/gateway/view", { channel: "room-updates", checks: [{ user: "x" }] }],
      ["POST", "/api/gateway/confirm", { seq: "1" }],
      ["POST", "/api/gateway/confirm", { seq: -1 }],
      ["GET", "/api/gateway/events"],
      ["GET", "/api/gateway/events?after=x&limit=1"],
      ["GET", "/api/gateway/events?after=0&limit=0"],
      ["GET", "/api/gateway/events?after=0&limit=1001"],
    ];
    for (const [method, target, body] of bad) {
      const answer = await pb.gateway(method, target, body);
      assert.equal(answer.status, 400, `${target} ${JSON.stringify(body)?.slice(0, 60)}`);
      assert.equal(answer.body.error.code, "bad_request");
    }
  });

  test("keys verify PocketBase's tokens", async () => {
    const answers = await pb.accounts(ann, bob, ann);
    assert.deepEqual(answers[0], answers[2]);
    for (const [user, answer] of [
      [ann, answers[0]],
      [bob, answers[1]],
    ]) {
      const [head, payload, signature] = user.token.split(".");
      assert.equal(createHmac("sha256", answer.key).update(`${head}.${payload}`).digest("base64url"), signature);
      assert.equal(answer.user, user.id);
    }
    const { body } = await pb.gateway("POST", "/api/gateway/keys", { users: [ann.id, "", "nowhere/nobody"] });
    assert.deepEqual(body, { keys: [null, null, null] });
  });

  test("keys come with the user's bans, mutes and blocks", async () => {
    const eve = await pb.user("eve");
    const account = async () => {
      const [{ key, user, ...rest }] = await pb.accounts(eve);
      return rest;
    };
    assert.deepEqual(await account(), { bannedUntil: 0, mutedUntil: 0, blocked: [] });
    const [banned_until, muted_until] = ["2100-01-01 00:00:00.250Z", "2001-02-03 04:05:06Z"];
    await pb.update("users", eve.id, { banned_until, muted_until, blocked: [bob.id, ann.id] });
    const [bannedUntil, mutedUntil] = [banned_until, muted_until].map(Date.parse);
    assert.deepEqual(await account(), { bannedUntil, mutedUntil, blocked: [bob.id, ann.id] });
  });

  test("authorize applies the guard's view rule", async () => {
    const open = await pb.create("rooms", { name: "open", type: "public", owner: ann.id }, ann);
    const table = [
      [ann.id, `room:${room.id}`, "allowed", "the owner"],
      [bob.id, `room:${room.id}`, "denied", "a stranger, private room"],
      [bob.id, `room:${open.id}`, "allowed", "a stranger, public room"],
      [ann.id, "room:missing", "denied", "no such room"],
      [ann.id, "room:", "denied", "no room named"],
      [ann.id, `room:${room.id}:x`, "denied", "more than an ID"],
      ["missing", `room:${open.id}`, "denied", "no such user"],
      [pb.root.id, `room:${open.id}`, "denied", "a superuser is no user"],
      [ann.id, `rooms:${room.id}`, "unknown", "no such namespace"],
      [ann.id, "room", "unknown", "no colon"],
      [ann.id, "", "unknown", "nothing"],
      [ann.id, "constructor:x", "unknown", "not a namespace either"],
      [ann.id, `user:${ann.id}`, "allowed", "one's own channel"],
      [bob.id, `user:${ann.id}`, "denied", "somebody else's"],
      ["missing", "user:missing", "denied", "of no user"],
      [ann.id, "user:", "denied", "of nobody"],
      [bob.id, "room-updates", "allowed", "every signed-in user"],
      ["missing", "room-updates", "denied", "no such user"],
    ];
    const check = async () => {
      const checks = table.map(([user, channel]) => ({ user, channel }));
      return (await pb.gateway("POST", "/api/gateway/authorize", { checks })).body.results;
    };
    assert.deepEqual(
      await check(),
      table.map((row) => row[2]),
    );

    const membership = await pb.create("room_members", { room: room.id, user: bob.id, role: "member" }, ann);
    assert.equal((await check())[1], "allowed");
    await pb.remove("room_members", membership.id, ann);
    assert.equal((await check())[1], "denied");

    await pb.update("users", bob.id, { banned_until: "2100-01-01 00:00:00Z" });
    assert.equal((await check())[2], "denied");
    await pb.update("users", bob.id, { banned_until: "" });
  });

  test("authorize uses the context of PocketBase's realtime", async () => {
    const {
      body: { viewRule },
    } = await pb.call("GET", "/api/collections/rooms", undefined, pb.root);
    const results = [];
    for (const sign of ["=", "!="]) {
      const rule = { viewRule: `@request.context ${sign} "realtime"` };
      assert.equal((await pb.call("PATCH", "/api/collections/rooms", rule, pb.root)).status, 200);
      const checks = [{ user: ann.id, channel: `room:${room.id}` }];
      results.push(...(await pb.gateway("POST", "/api/gateway/authorize", { checks })).body.results);
    }
    await pb.call("PATCH", "/api/collections/rooms", { viewRule }, pb.root);
    assert.deepEqual(results, ["allowed", "denied"]);
  });

  test("500 checks in one call", async () => {
    const checks = Array(500).fill({ user: ann.id, channel: `room:${room.id}` });
    const { body } = await pb.gateway("POST", "/api/gateway/authorize", { checks });
    assert.deepEqual(new Set(body.results), new Set(["allowed"]));
    assert.equal(body.results.length, 500);
  });

  test("events are given in pages", async () => {
    const { last } = await pb.events();
    const { events } = await pb.events(last - 3, 2);
    assert.deepEqual(
      events.map((e) => e.seq),
      [last - 2, last - 1],
    );
    const { boot, version, ...rest } = await pb.events(last);
    assert.deepEqual(rest, { events: [], last, problems: [], delivery: { url: intake.url, error: "" } });
    assert.match(boot, /^\w{16}$/);
    assert.match(version, /^\d+\.\d+\.\d+$/);
  });

  test("a page of large events ends early, but has at least one", async () => {
    const { last: before } = await pb.events(0, 1);
    const large = "\u0001".repeat(40_000); // six bytes each in JSON
    for (let i = 0; i < 22; i++) await pb.create("messages", text(room, ann, large), ann);
    const { events, last } = await pb.events(before);
    assert.equal(last, before + 22);
    assert.ok(events.length > 10 && events.length < 22, `${events.length} events`);
    const rest = await pb.events(events.at(-1).seq);
    assert.deepEqual(
      [...events, ...rest.events].map((e) => e.seq),
      Array.from({ length: 22 }, (_, i) => before + 1 + i),
    );
  });
});

describe("other configurations", () => {
  test("confirmed and old rows are trimmed, and their numbers stay used", async () => {
    const pb = await PocketBase.start({
      prepare: edit(CONFIG, "module.exports = {", "module.exports = {\n  outbox: { keepSeconds: 1 },"),
    });
    try {
      assert.equal((await pb.events()).last, 0);
      const { ann, room } = await people(pb);
      for (let i = 0; i < 4; i++) await pb.create("messages", text(room, ann), ann);
      const confirm = async (seq) => (await pb.gateway("POST", "/api/gateway/confirm", { seq })).body.trimmed;
      assert.equal(await confirm(6), 0, "too young");
      let trimmed = 0;
      // Row by row, as each becomes old enough.
      const trimmedUpTo = async (seq) => {
        trimmed += await confirm(seq);
        return trimmed;
      };
      const left = async () => (await pb.events()).events.map((e) => e.seq);
      await until(async () => (await trimmedUpTo(3)) === 2, "rows to be old enough");
      assert.deepEqual(await left(), [3, 4, 5, 6], "the last confirmed one stays, to recognise the outbox by");
      await until(async () => (await trimmedUpTo(6)) === 5, "the other rows");
      assert.deepEqual(await left(), [6]);
      await pb.create("messages", text(room, ann), ann);
      assert.equal((await pb.events()).last, 7);
    } finally {
      await pb.stop();
    }
  });

  test("a long outbox is trimmed in pieces, with other writes in between", async () => {
    const rows = 250_000;
    const fill = `routerAdd("POST", "/fill", (e) => {
      e.app.db().newQuery(\`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
        INSERT INTO _gateway_outbox (created, event) SELECT 0, '{"channels":[],"data":null,"x":"' || hex(randomblob(200)) || '"}' FROM n\`).execute();
      return e.json(200, {});
    });`;
    const pb = await PocketBase.start({
      prepare: (folder) => writeFileSync(path.join(folder, "pb_hooks/fill.pb.js"), fill),
    });
    try {
      assert.equal((await pb.call("POST", "/fill")).status, 200);
      const { ann, room } = await people(pb);
      const { last } = await pb.events(rows);
      let [done, writes, slowest] = [false, 0, 0];
      const writer = (async () => {
        for (; !done; writes++) {
          const started = Date.now();
          await pb.create("messages", text(room, ann), ann);
          slowest = Math.max(slowest, Date.now() - started);
        }
      })();
      const answers = [];
      do {
        answers.push((await pb.gateway("POST", "/api/gateway/confirm", { seq: last })).body);
      } while (answers.at(-1).more);
      done = true;
      await writer;
      assert.ok(answers.length > 1, "more than one call may take");
      assert.ok(answers.reduce((sum, { trimmed }) => sum + trimmed, 0) >= rows - 1);
      assert.ok(writes > answers.length && slowest < 1000, `${writes} writes, the slowest took ${slowest} ms`);
    } finally {
      await pb.stop();
    }
  });

  test("a record moves by one of several values", async () => {
    const pb = await PocketBase.start({
      prepare: edit(CONFIG, 'messages: ["room:{room}"]', 'messages: { to: ["room:{mentions}"], trusted: true }'),
    });
    try {
      const { ann, bob, room } = await people(pb);
      const { id } = await pb.create("messages", { ...text(room, ann), mentions: [ann.id] }, ann);
      const { last } = await pb.events();
      await pb.update("messages", id, { mentions: [ann.id, bob.id] }, ann);
      const rows = (await pb.events(last)).events.map((e) => [e.data.action, e.channels]);
      assert.deepEqual(rows, [
        ["update", [`room:${ann.id}`]],
        ["create", [`room:${bob.id}`]],
      ]);
    } finally {
      await pb.stop();
    }
  });

  test("a schema without bans, mutes and blocks", async () => {
    const without = edit(CONFIG, /^ +(bannedUntil|mutedUntil|blocked): .*\n/gm, "");
    // Without this setting, the config no longer shows that no user is banned.
    const vouched = edit(CONFIG, /: (\["user:.*\]),$/gm, ": { to: $1, trusted: true },");
    const pb = await PocketBase.start({ prepare: (folder) => [without, vouched].forEach((change) => change(folder)) });
    try {
      const ann = await pb.user("ann");
      const [account] = await pb.accounts(ann);
      assert.deepEqual(
        { ...account, key: null },
        { user: ann.id, key: null, bannedUntil: 0, mutedUntil: 0, blocked: [] },
      );
    } finally {
      await pb.stop();
    }
  });

  test("fields unhidden by other hooks stay hidden from the channel", async () => {
    const pb = await PocketBase.start({
      prepare(folder) {
        edit(CONFIG, "  relay: {", '  relay: {\n    users: ["room:{id}"],')(folder);
        const hook = `onRecordUpdate((e) => {
          e.record.unhide("tokenKey", "password");
          e.record.ignoreEmailVisibility(true);
          e.record.withCustomData(true);
          e.record.set("scratch", "custom");
          $app.expandRecord(e.record, ["blocked"], null);
          e.next();
        }, "users");`;
        writeFileSync(path.join(folder, "pb_hooks/careless.pb.js"), hook);
      },
    });
    try {
      const ann = await pb.user("ann");
      const bob = await pb.user("bob");
      const { last } = await pb.events();
      await pb.update("users", ann.id, {
        blocked: [bob.id],
        name: "Ann",
        password: "another-one-1",
        passwordConfirm: "another-one-1",
      });
      await pb.update("users", ann.id, { emailVisibility: true });
      const [hidden, shown] = (await pb.events(last)).events;
      assert.equal(hidden.data.record.name, "Ann");
      for (const name of ["email", "tokenKey", "password", "scratch", "expand"]) {
        assert.ok(!(name in hidden.data.record), name);
      }
      assert.equal(shown.data.record.email, ann.email);
    } finally {
      await pb.stop();
    }
  });

  test("a locked view rule closes the channel", async () => {
    const lock = edit(
      "pb_migrations/1795219260_konvert_schema.js",
      'viewRule: `${signedIn} && ${visible("")}`',
      "viewRule: null",
    );
    const pb = await PocketBase.start({ prepare: lock });
    try {
      const { ann, room } = await people(pb);
      const { body } = await pb.gateway("POST", "/api/gateway/authorize", {
        checks: [{ user: ann.id, channel: `room:${room.id}` }],
      });
      assert.deepEqual(body.results, ["denied"]);
    } finally {
      await pb.stop();
    }
  });

  test("no gateway at all: writes work", async () => {
    const pb = await PocketBase.start({ gatewayUrl: `http://127.0.0.1:${await freePort()}` });
    try {
      const { ann, room } = await people(pb);
      for (let i = 0; i < 5; i++) await pb.create("messages", text(room, ann), ann);
      assert.equal((await pb.events()).last, 7);
    } finally {
      await pb.stop();
    }
  });

  const refusals = [
    ["no secret", { env: { GATEWAY_SECRET: "" }, says: "GATEWAY_SECRET is not set" }],
    [
      "a short second secret",
      { env: { GATEWAY_SECRET_SECOND: "short" }, says: "GATEWAY_SECRET_SECOND has 5 characters" },
    ],
    ["a secret and a file of it", { env: { GATEWAY_SECRET_FILE: "/dev/null" }, says: "unset one of the two" }],
    [
      "a secret's file that is not there",
      { env: { GATEWAY_SECRET: "", GATEWAY_SECRET_FILE: "/does/not/exist" }, says: "/does/not/exist" },
    ],
    ["a short secret", { env: { GATEWAY_SECRET: "x".repeat(31) }, says: "GATEWAY_SECRET has 31 characters" }],
    ["an impossible address", { env: { GATEWAY_URL: "localhost:8000" }, says: "GATEWAY_URL" }],
    ["a collection that is not there", { change: ["messages:", "mesages:"], says: '"mesages"' }],
    ["a field that is not there", { change: ["{message.room}", "{message.chamber}"], says: '"chamber"' }],
    ["a guard that is not there", { change: ['guard: "rooms"', 'guard: "halls"'], says: '"halls"' }],
    ["users that cannot log in", { change: [/"users"/g, '"rooms"'], says: "not an auth collection" }],
    ["no users", { change: ['collection: "users"', 'collection: ""'], says: "users.collection" }],
    ["a ban that is not there", { change: ['"banned_until"', '"ban"'], says: 'no field "ban"' }],
    ["a ban that is no date", { change: ['"banned_until"', '"name"'], says: '"name" of "users" is not a date' }],
    ["blocked users that are text", { change: ['blocked: "blocked"', 'blocked: "name"'], says: "users.blocked" }],
    ["a perUser that is not there", { change: ["perUser: { room_members:", "perUser: { members:"], says: '"members"' }],
    [
      "a perUser that leads to no user",
      {
        change: ['room_members: "user"', 'room_members: "room"'],
        says: '"room" of "room_members" is not a relation to "users"',
      },
    ],
    ["a channel without a guard", { change: ["room:{id}", "hall:{id}"], says: '"hall"' }],
    [
      "a timeout of half a second",
      {
        change: ["module.exports = {", "module.exports = { delivery: { timeoutSeconds: 0.5 },"],
        says: "delivery.timeoutSeconds",
      },
    ],
    ["no outbox", { prepare: (folder) => rmSync(path.join(folder, OUTBOX)), says: "_gateway_outbox.js" }],
    [
      "a config that is not JavaScript",
      {
        change: ["module.exports = {", "module.exports = {{"],
        says: "gateway: gateway.config.js is not valid JavaScript: SyntaxError",
      },
    ],
    [
      "a config that throws an error",
      {
        prepare: (folder) => writeFileSync(path.join(folder, CONFIG), "// ours\nmodule.exports = { users: usres };"),
        says: "gateway: gateway.config.js threw an error in line 2: ReferenceError: usres is not defined",
      },
    ],
    [
      "a config that throws a syntax error of its own",
      {
        prepare: (folder) => writeFileSync(path.join(folder, CONFIG), 'module.exports = JSON.parse("{");'),
        says: "gateway: gateway.config.js threw an error in line 1: SyntaxError: ",
      },
    ],
    [
      "a config that requires a missing file",
      {
        prepare: (folder) => writeFileSync(path.join(folder, CONFIG), 'module.exports = require("./missing.js");'),
        says: "gateway: gateway.config.js threw an error in line 1: Invalid module",
      },
    ],
  ];
  /** Runs commands in sequence in a new installation; returns the result of the last command. */
  function commands(list, { env, prepare } = {}) {
    const folder = install(prepare);
    try {
      return list.map((args) => run(folder, args, env)).at(-1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  for (const [what, { env, change, prepare = change && edit(CONFIG, ...change), says }] of refusals) {
    test(`PocketBase does not start with ${what}`, async () => {
      const serve = ["serve", "--http", `127.0.0.1:${await freePort()}`];
      const { status, output } = commands([serve], { env, prepare });
      assert.equal(status, 1, output);
      assert.ok(output.includes(says), output);
    });
  }

  test("other commands need no secret", () => {
    const { status, output } = commands([["superuser", "upsert", "a@example.com", "password-123"]], {
      env: { GATEWAY_SECRET: "" },
    });
    assert.equal(status, 0, output);
  });

  test("the migrations go down and up again", () => {
    const { status, output } = commands([
      ["migrate", "up"],
      ["migrate", "down", "6"],
      ["migrate", "up"],
    ]);
    assert.equal(status, 0, output);
    assert.match(
      output,
      /gateway_outbox[\s\S]*konvert_schema[\s\S]*konvert_chat[\s\S]*konvert_import[\s\S]*konvert_upkeep[\s\S]*konvert_files/,
    ); // all were gone
  });
});
