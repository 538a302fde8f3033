// The npm package `centrifuge` with two gateways on one Redis, beyond the scenarios of all SDKs (../sdk): many rooms at
// once, failing handlers, and parts that no other SDK has. The hooks post to gateway A.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import PocketBaseSdk from "pocketbase";
import WebSocket from "ws";
import { PASSWORD } from "../pocketbase/harness.mjs";
import { Lab, freePort, next, until } from "./harness.mjs";

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

/** A live subscription. `messages` collects the contents of the messages. */
async function subscribe(it, channel = `room:${room}`) {
  const subscription = it.newSubscription(channel);
  subscription.messages = [];
  subscription.on("publication", ({ data }) => {
    if (data.collection === "messages") subscription.messages.push(data.record.content);
  });
  const live = next(subscription, "subscribed");
  subscription.subscribe();
  await live;
  return subscription;
}

const arrival = (subscription, content) =>
  until(() => subscription.messages.includes(content), `"${content}" to arrive; there are ${subscription.messages}`);

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

check("unsupported kinds of subscriptions are error 108", async (t) => {
  const it = client(t, a.websocket, { token: alice.token });
  for (const kind of ["newMapSubscription", "newMapClientsSubscription", "newSharedPollSubscription"]) {
    const subscription = it[kind](`room:${room}`, {});
    const refused = next(subscription, "unsubscribed");
    subscription.subscribe();
    assert.equal((await refused).code, 108, kind);
    it.removeSubscription(subscription);
  }
});

check("a publish without data is error 107, and the connection goes on", async (t) => {
  const subscription = await subscribe(client(t, a.websocket, { token: alice.token }));
  for (const nothing of [undefined, null]) await assert.rejects(subscription.publish(nothing), { code: 107 });
  await subscription.publish({ type: "typing" });
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
