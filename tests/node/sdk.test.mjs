// The published `centrifuge` package, unchanged, with two gateways on one Redis beside a real PocketBase. Alice's
// clients are on gateway A, Bob's on B; the hooks post to A only.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import PocketBaseSdk from "pocketbase";
import WebSocket from "ws";
import { PASSWORD } from "../pocketbase/harness.mjs";
import { Cable, Lab, freePort, next, until } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
let pocketbase, a, b, alice, bob, room;

before(
  lab.explained(async () => {
    const [portA, portB, redisUrl] = [await freePort(), await freePort(), await lab.redis()];
    pocketbase = await lab.pocketbase(`http://127.0.0.1:${portA}`);
    // A grace of one second, so that a connection without a timely refresh is closed within the test's time.
    const env = { GATEWAY_TOKEN_GRACE: "1" };
    a = await lab.gateway("gateway-a", { port: portA, pocketbase, redisUrl, env });
    b = await lab.gateway("gateway-b", { port: portB, pocketbase, redisUrl });
    [alice, bob] = [await pocketbase.user("alice"), await pocketbase.user("bob")];
    room = await newRoom(alice, bob);
  }),
);
after(() => lab.stop());

// ── Helpers ─────────────────────────────────────────────────────────────────

async function newRoom(owner, ...members) {
  const { id } = await pocketbase.create("rooms", { name: "Room", type: "private", owner: owner.id }, owner);
  for (const { id: user } of members) {
    await pocketbase.create("room_members", { room: id, user, role: "member" }, owner);
  }
  return id;
}

function write(user, content, into = room) {
  return pocketbase.create("messages", { room: into, author: user.id, content, type: "text" }, user);
}

/** A client of the SDK, disconnected at the end of the test. */
function client(t, websocket, options) {
  const it = new Centrifuge(websocket, {
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...options,
  });
  t.after(() => it.disconnect());
  it.connect();
  return it;
}

/** A live subscription. `received` collects the publications, `messages` the contents of the messages. */
async function subscribe(it, channel = `room:${room}`) {
  const subscription = it.newSubscription(channel);
  subscription.received = [];
  subscription.messages = [];
  subscription.on("publication", (publication) => {
    subscription.received.push(publication);
    if (publication.data.collection === "messages") subscription.messages.push(publication.data.record.content);
  });
  const live = next(subscription, "subscribed");
  subscription.subscribe();
  await live;
  return subscription;
}

const arrival = (subscription, content) =>
  until(() => subscription.messages.includes(content), `"${content}" to arrive; there are ${subscription.messages}`);

const both = async (t) => [
  await subscribe(client(t, a.websocket, { token: alice.token })),
  await subscribe(client(t, b.websocket, { token: bob.token })),
];

// ── The tests ───────────────────────────────────────────────────────────────

check("a page with a hundred rooms is subscribed to all of them at once, on either gateway", async (t) => {
  const rooms = [];
  for (let i = 0; i < 100; i++) rooms.push(await newRoom(alice));
  for (const [name, { websocket }] of Object.entries({ a, b })) {
    const it = new Centrifuge(websocket, { websocket: WebSocket, token: alice.token });
    t.after(() => it.disconnect());
    const errors = [];
    const subscribed = rooms.map((id) => {
      const subscription = it.newSubscription(`room:${id}`);
      subscription.on("error", ({ error }) => errors.push(error.message));
      const live = next(subscription, "subscribed", () => true, 30_000);
      subscription.subscribe();
      return live;
    });
    const begin = performance.now();
    it.connect();
    await Promise.all(subscribed);
    const took = performance.now() - begin;
    t.diagnostic(`gateway ${name}: ${took.toFixed()} ms from connect() to the last subscribe reply`);
    assert.deepEqual(errors, []);
    // More than ten times the usual duration. One call to PocketBase per room, 50 ms apart, took more than 5 s.
    assert.ok(took < 3000, `${took} ms`);
  }
});

check("a message that is created by REST reaches subscribers on both gateways", async (t) => {
  const subscriptions = await both(t);
  const record = await write(alice, "to both");
  for (const subscription of subscriptions) {
    await arrival(subscription, "to both");
    const { data, offset } = subscription.received.at(-1);
    assert.equal(data.action, "create");
    assert.equal(data.collection, "messages");
    assert.deepEqual(
      { id: data.record.id, room: data.record.room, author: data.record.author },
      { id: record.id, room, author: alice.id },
    );
    assert.ok(offset > 0);
  }
});

check("updates and deletions arrive too, in order", async (t) => {
  const [, subscription] = await both(t);
  const { id } = await write(alice, "first");
  await pocketbase.update("messages", id, { content: "second" }, alice);
  await pocketbase.remove("messages", id, alice);
  const about = () => subscription.received.filter(({ data }) => data.record?.id === id);
  await until(() => about().length === 3, "three publications");
  assert.deepEqual(
    about().map(({ data }) => data.action),
    ["create", "update", "delete"],
  );
  const offsets = about().map(({ offset }) => offset);
  assert.deepEqual(
    offsets,
    offsets.toSorted((x, y) => x - y),
  );
});

check("a member's signal reaches the others with its sender, outside of the history", async (t) => {
  const [alices, bobs] = await both(t);
  const isTyping = ({ data }) => data.type === "typing";
  const signal = next(bobs, "publication", isTyping);
  const { offset: before } = await alices.history({ limit: 0 });
  await alices.publish({ type: "typing" });
  const { data, info, offset } = await signal;
  assert.deepEqual(data, { type: "typing" });
  assert.equal(info.user, alice.id);
  assert.ok(!offset, `a short-lived signal has no place in the stream, but came with offset ${offset}`);
  assert.equal((await alices.history({ limit: 0 })).offset, before);
});

check("history is the same on both gateways, and read from a position with a limit", async (t) => {
  const [alices, bobs] = await both(t);
  const start = await alices.history({ limit: 0 });
  assert.deepEqual(start.publications, []);
  for (const content of ["h1", "h2", "h3"]) await write(alice, content);
  await arrival(alices, "h3");
  await arrival(bobs, "h3");
  for (const subscription of [alices, bobs]) {
    const contents = async (options) =>
      (await subscription.history(options)).publications.map(({ data }) => data.record.content);
    const since = { offset: start.offset, epoch: start.epoch };
    assert.deepEqual(await contents({ limit: 2, since }), ["h1", "h2"]);
    assert.deepEqual(await contents({ limit: 10, since }), ["h1", "h2", "h3"]);
    assert.deepEqual(await contents({ limit: 1, reverse: true }), ["h3"]);
  }
});

check("presence knows the members on all gateways", async (t) => {
  const [alices, bobs] = await both(t);
  const expected = [alice.id, bob.id].sort();
  for (const subscription of [alices, bobs]) {
    const users = async () => Object.values((await subscription.presence()).clients).map(({ user }) => user);
    await until(async () => (await users()).length === 2, "both to be present and nobody else");
    assert.deepEqual((await users()).sort(), expected);
    assert.deepEqual(await subscription.presenceStats(), { numClients: 2, numUsers: 2 });
  }
});

check("joins and leaves reach subscribers that ask for them, on both gateways", async (t) => {
  const alices = client(t, a.websocket, { token: alice.token }).newSubscription(`room:${room}`, { joinLeave: true });
  const moves = [];
  alices.on("join", ({ info }) => moves.push(["join", info.user]));
  alices.on("leave", ({ info }) => moves.push(["leave", info.user]));
  const live = next(alices, "subscribed");
  alices.subscribe();
  await live;
  await until(async () => (await alices.presenceStats()).numClients === 1, "those of other tests to be gone");
  moves.length = 0;
  const bobs = client(t, b.websocket, { token: bob.token });
  await subscribe(bobs);
  await until(() => moves.length === 1, "the join");
  bobs.disconnect();
  await until(() => moves.length === 2, "the leave");
  assert.deepEqual(moves, [
    ["join", bob.id],
    ["leave", bob.id],
  ]);
});

check("a user's status comes with the subscription, and with every change", async (t) => {
  const [carol, dan] = [await pocketbase.user("carol"), await pocketbase.user("dan")];
  const dans = client(t, b.websocket, { token: dan.token });
  const status = dans.newSubscription(`status:${carol.id}`);
  const seen = [];
  status.on("publication", ({ data }) => seen.push(data.status));
  const live = next(status, "subscribed");
  status.subscribe();
  assert.equal((await live).data.status, "offline");
  const carols = client(t, a.websocket, { token: carol.token });
  await until(() => seen.length === 1, "her coming");
  const { data } = await carols.rpc("status.set", { status: "dnd" });
  assert.deepEqual([data.mode, data.status], ["dnd", "dnd"]);
  await until(() => seen.length === 2, "her wish");
  await carols.rpc("status.set", { status: "invisible" });
  await until(() => seen.length === 3, "her going");
  assert.deepEqual(seen, ["online", "dnd", "offline"]);
  const { data: asked } = await dans.rpc("status.get", { users: [carol.id, dan.id, "nobody"] });
  assert.equal(asked.statuses[carol.id].status, "offline");
  assert.ok(Math.abs(asked.statuses[carol.id].last_seen - Date.now()) < 5000);
  assert.equal(asked.statuses[dan.id].status, "online");
  assert.deepEqual(Object.keys(asked.statuses).sort(), [carol.id, dan.id].sort());
});

check("nothing arrives after unsubscribing", async (t) => {
  const [, leaving] = await both(t);
  const staying = await subscribe(client(t, b.websocket, { token: bob.token }));
  leaving.unsubscribe();
  await write(alice, "after the leave");
  await arrival(staying, "after the leave"); // on the same gateway, so the message would have arrived by now
  assert.deepEqual(leaving.messages, []);
});

check("an unknown method is error 104", async (t) => {
  const it = client(t, a.websocket, { token: alice.token });
  await assert.rejects(it.rpc("no-such-method", {}), { code: 104 });
});

check("a room that PocketBase does not show is error 103", async (t) => {
  const others = await newRoom(alice);
  const subscription = client(t, b.websocket, { token: bob.token }).newSubscription(`room:${others}`);
  const refused = next(subscription, "unsubscribed");
  subscription.subscribe();
  assert.equal((await refused).code, 103);
});

check("a forged token is disconnect 3500, and the SDK does not try again", async (t) => {
  const [header, claims, signature] = alice.token.split(".");
  const forged = [header, claims, signature.split("").reverse().join("")].join(".");
  const it = client(t, a.websocket, { token: forged });
  assert.equal((await next(it, "disconnected")).code, 3500);
});

check("a client that was cut off recovers exactly the missed messages, in order", async (t) => {
  const cable = await Cable.to(a.port);
  t.after(() => cable.close());
  const it = client(t, cable.websocket, { token: alice.token });
  const subscription = await subscribe(it);
  await write(bob, "m0");
  await arrival(subscription, "m0");

  cable.cut();
  await next(it, "connecting");
  const missed = Array.from({ length: 20 }, (_, n) => `m${n + 1}`);
  for (const content of missed) await write(bob, content);
  assert.deepEqual(subscription.messages, ["m0"]);

  const back = next(subscription, "subscribed");
  cable.mend();
  const context = await back;
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, true);
  await write(bob, "live again");
  await arrival(subscription, "live again");
  assert.deepEqual(subscription.messages, ["m0", ...missed, "live again"]);
});

for (const event of ["subscribed", "publication"]) {
  check(`a handler of "${event}" that throws while a recovery is handed out loses nothing`, async (t) => {
    // The SDK does not catch the error; only the process sees it.
    const thrown = [];
    const previous = process.listeners("unhandledRejection");
    process.removeAllListeners("unhandledRejection");
    process.on("unhandledRejection", (error) => thrown.push(error));
    t.after(() => {
      process.removeAllListeners("unhandledRejection");
      for (const listener of previous) process.on("unhandledRejection", listener);
    });
    const into = await newRoom(alice, bob);
    const it = client(t, a.websocket, { token: alice.token });
    const subscription = it.newSubscription(`room:${into}`);
    const messages = [];
    let [subscriptions, wasThrown] = [0, false];
    const fail = () => {
      wasThrown = true;
      throw new Error("a bug of the application");
    };
    subscription.on("subscribed", () => {
      subscriptions += 1;
      if (event === "subscribed" && subscriptions === 2) fail();
    });
    subscription.on("publication", ({ data }) => {
      if (data.collection !== "messages") return;
      if (event === "publication" && data.record.content === "b" && !wasThrown) fail();
      messages.push(data.record.content);
    });
    const live = next(subscription, "subscribed");
    subscription.subscribe();
    await live;
    await write(bob, "a", into);
    await until(() => messages.includes("a"), "the first message");
    it.disconnect();
    for (const content of ["b", "c", "d"]) await write(bob, content, into);
    it.connect();
    await until(() => wasThrown, "the error");
    it.disconnect();
    it.connect();
    await write(bob, "e", into);
    await until(() => messages.includes("e"), `the last message; there are ${messages}`);
    assert.deepEqual(messages, ["a", "b", "c", "d", "e"]);
    assert.equal(thrown.length, 1);
  });
}

check("getState subscribes, with or without an epoch, also to updates channels", async (t) => {
  const into = await newRoom(alice);
  await write(alice, "before", into);
  const it = client(t, a.websocket, { token: alice.token });
  const history = await until(async () => {
    const first = await subscribe(it, `room:${into}`);
    const { publications } = await first.history({ limit: 100 });
    first.unsubscribe();
    it.removeSubscription(first);
    return publications.some(({ data }) => data.collection === "messages") && publications;
  }, "the message in the history");
  for (const [channel, position, expected] of [
    [`room:${into}`, { offset: 0, epoch: "" }, history.length],
    [`room:${into}`, { offset: history.length, epoch: "" }, 0],
    ["room-updates", { offset: 0, epoch: "" }, 0],
    ["room-updates", { offset: 0, epoch: "of another subscription" }, 0],
  ]) {
    let calls = 0;
    const received = [];
    const getState = async () => {
      calls += 1;
      return position;
    };
    const subscription = it.newSubscription(channel, { getState, minResubscribeDelay: 50, maxResubscribeDelay: 100 });
    subscription.on("publication", ({ offset }) => received.push(offset));
    const live = next(subscription, "subscribed");
    subscription.subscribe();
    const { wasRecovering, recovered } = await live;
    assert.deepEqual([wasRecovering, recovered], [true, channel !== "room-updates"], channel);
    await it.rpc("status.set", {}); // the reply's publications have been handed out by then
    assert.deepEqual([calls, received.length], [1, expected], channel);
    subscription.unsubscribe();
    it.removeSubscription(subscription);
  }
});

check("unsupported kinds of subscriptions are error 108", async (t) => {
  const it = client(t, a.websocket, { token: alice.token });
  for (const kind of ["newMapSubscription", "newMapClientsSubscription", "newSharedPollSubscription"]) {
    const subscription = it[kind](`room:${room}`, {});
    const refused = next(subscription, "unsubscribed");
    subscription.subscribe();
    assert.equal((await refused).code, 108, kind);
    it.removeSubscription(subscription);
  }
  const filtered = it.newSubscription(`room:${room}`, { tagsFilter: { key: "a", cmp: "eq", val: "b" } });
  const refused = next(filtered, "unsubscribed");
  filtered.subscribe();
  assert.equal((await refused).code, 108);
});

check("a publish without data is error 107, and the connection goes on", async (t) => {
  const subscription = await subscribe(client(t, a.websocket, { token: alice.token }));
  for (const nothing of [undefined, null]) await assert.rejects(subscription.publish(nothing), { code: 107 });
  await subscription.publish({ type: "typing" });
});

check("after an expired token, to connect or to refresh, the SDK fetches a fresh one", async (t) => {
  const impersonate = async (duration) => {
    const path = `/api/collections/users/impersonate/${alice.id}`;
    const answer = await pocketbase.call("POST", path, { duration }, pocketbase.root);
    assert.equal(answer.status, 200);
    return answer.body.token;
  };
  const expired = await impersonate(1);
  const expiry = JSON.parse(Buffer.from(expired.split(".")[1], "base64url")).exp * 1000;
  await until(() => Date.now() > expiry + 1_000, "the token to expire");

  // At the first connect, with subscribes in the same frame; and later, at the first refresh.
  const tokens = [await impersonate(4), expired, await impersonate(600)];
  const it = client(t, a.websocket, { token: expired, getToken: async () => tokens.shift() });
  const ends = [];
  it.on("disconnected", ({ code }) => ends.push(code));
  const closed = next(it, "connecting", ({ code }) => code === 3005, 20_000);
  const subscription = await subscribe(it);
  await closed;
  const back = next(subscription, "subscribed");
  await back;
  assert.deepEqual([ends, tokens], [[], []]);
});

check("a connection outlives its token, because the SDK fetches a new one in time", async (t) => {
  const answer = await pocketbase.call(
    "PATCH",
    "/api/collections/users",
    { authToken: { duration: 10 } },
    pocketbase.root,
  );
  assert.equal(answer.status, 200);

  const sdk = new PocketBaseSdk(pocketbase.url);
  await sdk.collection("users").authWithPassword(alice.email, PASSWORD);
  const expiries = [];
  const getToken = async () => {
    const { token } = await sdk.collection("users").authRefresh(); // possible only with a valid token
    expiries.push(JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp * 1000);
    return token;
  };
  let refreshAt;
  class Tapped extends WebSocket {
    constructor(...args) {
      super(...args);
      this.on("message", (frame) => {
        for (const reply of String(frame)
          .split("\n")
          .map((line) => JSON.parse(line))) {
          if (reply.connect) refreshAt = Date.now() + reply.connect.ttl * 1000;
        }
      });
    }
  }
  const it = client(t, a.websocket, { getToken, websocket: Tapped });
  const subscription = await subscribe(it);
  let drops = 0;
  it.on("connecting", () => (drops += 1)).on("disconnected", () => (drops += 1));

  // PocketBase does not renew an expired token, and the request takes time.
  const spare = expiries[0] - refreshAt;
  assert.ok(
    spare >= 1000,
    `the SDK is told to refresh ${spare} ms before the token expires; at least a second is needed`,
  );
  await until(
    () => Date.now() > expiries[0] + 2_000 && expiries.length > 1,
    "the first token to expire and another to be fetched",
    20_000,
  );
  await write(bob, "past the first token");
  await arrival(subscription, "past the first token");
  assert.equal(drops, 0);
});
