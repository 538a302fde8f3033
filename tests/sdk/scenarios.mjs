// The scenarios that every SDK must pass, in every encoding, over every transport and in every topology.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { until } from "../node/harness.mjs";
import { GRACE } from "./stage.mjs";

/** Length of a cut or a stall in milliseconds. */
const INTERRUPTION = 5000;
/** Scripts of several lengths in UTF-8, and characters that JSON and JavaScript treat specially. */
const TEXT = 'größe, привет, 你好, 🦀, "quoted\\", \u2028, </script>';

/** A subscriber and the members of a room. */
async function subscriber({ t, stage, sdk, alice, bob }, options) {
  const room = await stage.room(alice, bob);
  const client = await stage.open(t, sdk, alice.token, options);
  await client.subscribe(room.channel);
  return { client, room };
}

/** A subscriber on the first gateway, in the other encoding. */
async function peerOf({ t, stage, sdk, bob }, channel) {
  const peer = stage.peer(t, sdk, bob.token);
  await peer.subscribe(channel);
  return peer;
}

/** Fails if the connection was lost or an error was reported. */
function undisturbed(client) {
  const unexpected = client.events.filter(({ event }) => ["disconnected", "error", "unsubscribed"].includes(event));
  assert.deepEqual(unexpected, []);
  assert.equal(client.all("connecting").length, 1);
  assert.equal(client.all("connected").length, 1);
}

const secondsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp;

export const scenarios = {
  "a PocketBase token connects": async ({ t, stage, sdk, alice }) => {
    const client = await stage.open(t, sdk, await stage.login(alice));
    const { id, transport } = await client.connected();
    assert.ok(id.length > 10, id);
    if (transport) assert.equal(transport, sdk.transport);
    undisturbed(client);
  },

  "records that are created, updated and deleted by REST arrive in order": async (at) => {
    const { stage, bob } = at;
    const { client, room } = await subscriber(at);
    const record = await stage.write(bob, TEXT, room);
    await stage.pocketbase.update("messages", record.id, { content: "second" }, bob);
    await stage.pocketbase.remove("messages", record.id, bob);
    const about = () => client.publications(room.channel).filter(({ data }) => data.record.id === record.id);
    await client.until(() => about().length === 3, "three publications");
    assert.deepEqual(
      about().map(({ data }) => [data.action, data.collection, data.record.content]),
      [
        ["create", "messages", TEXT],
        ["update", "messages", "second"],
        ["delete", "messages", "second"],
      ],
    );
    const { author, type, room: where } = about()[0].data.record;
    assert.deepEqual({ author, type, where }, { author: bob.id, type: "text", where: room.id });
    assert.ok(about()[0].offset > 0);
    about().forEach(({ offset, user }, n) => {
      assert.deepEqual([offset, user ?? null], [about()[0].offset + n, null]);
    });
    undisturbed(client);
  },

  "a large record arrives": async (at) => {
    const { client, room } = await subscriber(at);
    const content = TEXT.repeat(900); // about 60 KB, beyond the lengths that two bytes can tell in either framing
    await at.stage.write(at.bob, content, room);
    await client.arrival(room.channel, content);
  },

  "signals pass between clients of both encodings, with the sender, outside of the history": async (at) => {
    const { client, room } = await subscriber(at);
    const { channel } = room;
    const peer = await peerOf(at, channel);
    const { offset: before } = await client.call("history", { channel, limit: 0 });
    const signals = (of, user) => of.publications(channel).filter((it) => it.user === user);
    for (const [from, to, sender] of [
      [peer, client, at.bob],
      [client, peer, at.alice],
    ]) {
      await from.call("publish", { channel, data: { type: "typing", text: TEXT } });
      for (const reader of [from, to]) {
        const [signal] = await reader.until(
          () => signals(reader, sender.id).length && signals(reader, sender.id),
          "the signal",
        );
        assert.deepEqual([signal.data, signal.offset], [{ type: "typing", text: TEXT }, 0]);
      }
    }
    const { code } = await client.failure("publish", { channel, data: { type: "no such signal" } });
    assert.equal(code, 103);
    assert.equal((await client.call("history", { channel, limit: 0 })).offset, before);
    undisturbed(client);
  },

  "the history is read from a position, with a limit and backwards": async (at) => {
    const { client, room } = await subscriber(at);
    const { channel } = room;
    const start = await client.call("history", { channel, limit: 0 });
    assert.deepEqual(start.publications, []);
    for (const content of ["h1", "h2", TEXT]) await at.stage.write(at.bob, content, room);
    await client.arrival(channel, TEXT);
    const contents = async (options) => {
      const { publications } = await client.call("history", { channel, ...options });
      return publications.map(({ data, offset }) => [offset - start.offset, data.record.content]);
    };
    const since = { offset: start.offset, epoch: start.epoch };
    assert.deepEqual(await contents({ limit: 2, since }), [
      [1, "h1"],
      [2, "h2"],
    ]); // prettier
    assert.deepEqual(await contents({ limit: 10, since }), [
      [1, "h1"],
      [2, "h2"],
      [3, TEXT],
    ]);
    assert.deepEqual(await contents({ limit: 1, reverse: true }), [[3, TEXT]]);
    const { code } = await client.failure("history", { channel, limit: 1, since: { offset: 1, epoch: "another" } });
    assert.equal(code, 112);
  },

  "presence, joins and leaves show who is there": async (at) => {
    const { t, stage, sdk, alice, bob } = at;
    const { channel } = await stage.room(alice, bob);
    const client = await stage.open(t, sdk, alice.token);
    await client.subscribe(channel, { joinLeave: true });
    const peer = await peerOf(at, channel);
    assert.equal((await client.nth(0, "join", channel)).user, bob.id);
    const { users } = await client.call("presence", { channel });
    const ids = await Promise.all([client, peer].map(async (it) => (await it.connected()).id));
    assert.deepEqual(users, { [ids[0]]: alice.id, [ids[1]]: bob.id });
    assert.deepEqual(await client.call("presenceStats", { channel }), { clients: 2, users: 2 });
    peer.close();
    assert.equal((await client.nth(0, "leave", channel)).user, bob.id);
    assert.deepEqual(await client.call("presenceStats", { channel }), { clients: 1, users: 1 });
  },

  "rpc sets a status, which its subscribers see": async (at) => {
    const { t, stage, sdk } = at;
    const [carol, dan] = [await stage.user(), await stage.user()];
    const channel = `status:${carol.id}`;
    const observer = await stage.open(t, sdk, dan.token);
    assert.equal((await observer.subscribe(channel)).data.status, "offline");
    const client = await stage.open(t, sdk, carol.token);
    const seen = () => observer.publications(channel).map(({ data }) => data.status);
    await observer.until(() => seen().length === 1, "the status");
    const { data } = await client.call("rpc", { method: "status.set", data: { status: "dnd" } });
    assert.deepEqual([data.mode, data.status], ["dnd", "dnd"]);
    await observer.until(() => seen().length === 2, "the second status");
    assert.deepEqual(seen(), ["online", "dnd"]);
    const { data: asked } = await observer.call("rpc", { method: "status.get", data: { users: [carol.id, "nobody"] } });
    assert.deepEqual(Object.keys(asked.statuses), [carol.id]);
    assert.equal(asked.statuses[carol.id].status, "dnd");
    const { code } = await client.failure("rpc", { method: "no such method", data: {} });
    assert.equal(code, 104);
    undisturbed(client);
  },

  "refused and ended subscriptions leave the others alone": async (at) => {
    const { stage, alice, bob } = at;
    const foreign = await stage.room(bob);
    const left = await stage.room(alice, bob);
    const { client, room } = await subscriber(at);
    for (const [channel, code] of [
      [foreign.channel, 103],
      ["nowhere:1", 102],
    ]) {
      client.startSubscribing(channel);
      assert.equal((await client.nth(0, "unsubscribed", channel)).code, code);
    }
    await client.subscribe(left.channel);
    client.send({ do: "unsubscribe", channel: left.channel });
    await client.nth(0, "unsubscribed", left.channel);
    // Presence is for subscribers, so that an answer shows how many are left.
    const peer = await peerOf(at, left.channel);
    await until(
      async () => (await peer.call("presenceStats", { channel: left.channel })).clients === 1,
      "the gateway to have unsubscribed the client",
      20_000,
    );
    await stage.write(bob, "after the leave", left);
    await peer.arrival(left.channel, "after the leave");
    await stage.write(bob, "last", room);
    await client.arrival(room.channel, "last");
    assert.deepEqual(client.messages(left.channel), []);
  },

  "a cut of 5 s is recovered": async (at) => {
    const { client, room } = await subscriber(at);
    await at.stage.write(at.bob, "m0", room);
    await client.arrival(room.channel, "m0");
    client.network.cut();
    await client.nth(1, "connecting");
    const missed = Array.from({ length: 10 }, (_, n) => `m${n + 1} ${TEXT}`);
    for (const content of missed) await at.stage.write(at.bob, content, room);
    await pause(INTERRUPTION);
    assert.deepEqual(client.messages(room.channel), ["m0"]);
    client.network.swap();
    client.network.mend();
    const { wasRecovering, recovered } = await client.nth(1, "subscribed", room.channel);
    assert.deepEqual([wasRecovering, recovered], [true, true]);
    await at.stage.write(at.bob, "live again", room);
    await client.arrival(room.channel, "live again");
    assert.deepEqual(client.messages(room.channel), ["m0", ...missed, "live again"]);
    assert.deepEqual(client.all("disconnected"), []);
  },

  // With two gateways, whose pings come more often, the client notices the stall and goes to the other gateway.
  "a stall of 5 s loses nothing": async (at) => {
    const isNoticed = at.stage.gateways.length > 1;
    const { client, room } = await subscriber(at, isNoticed ? { pingDelay: 500 } : {});
    await at.stage.write(at.bob, "m0", room);
    await client.arrival(room.channel, "m0");
    client.network.stall();
    client.network.swap();
    const held = Array.from({ length: 10 }, (_, n) => `m${n + 1} ${TEXT}`);
    for (const content of held) await at.stage.write(at.bob, content, room);
    await pause(INTERRUPTION);
    assert.deepEqual(client.messages(room.channel), ["m0"]);
    if (isNoticed) await client.nth(1, "connecting");
    client.network.resume();
    await client.arrival(room.channel, held.at(-1));
    await at.stage.write(at.bob, "live again", room);
    await client.arrival(room.channel, "live again");
    assert.deepEqual(client.messages(room.channel), ["m0", ...held, "live again"]);
    assert.equal(client.all("subscribed", room.channel).length > 1, isNoticed);
    assert.deepEqual(client.all("disconnected"), []);
  },

  "a deleted membership ends the subscription, and nothing follows": async (at) => {
    const { stage, alice, bob, t, sdk } = at;
    const [room, other] = [await stage.room(bob, alice), await stage.room(alice, bob)];
    const client = await stage.open(t, sdk, alice.token);
    await client.subscribe(room.channel);
    await client.subscribe(other.channel);
    await stage.pocketbase.remove("room_members", room.memberships[0].id);
    const { code, reason } = await client.nth(0, "unsubscribed", room.channel);
    assert.deepEqual([code, reason], [2100, "removed from the channel"]);
    await stage.write(bob, "secret", room);
    await stage.write(bob, "public", other);
    await client.arrival(other.channel, "public");
    assert.deepEqual(client.messages(room.channel), []);
  },

  "a ban ends the connection, and the SDK stays away": async ({ t, stage, sdk }) => {
    const user = await stage.user();
    const client = await stage.open(t, sdk, user.token);
    await client.connected();
    await stage.pocketbase.update("users", user.id, { banned_until: new Date(Date.now() + 3600_000).toISOString() });
    const { code, reason } = await client.nth(0, "disconnected");
    assert.deepEqual([code, reason], [4501, "banned"]);
    const again = await stage.open(t, sdk, user.token);
    assert.equal((await again.nth(0, "disconnected")).code, 4501);
    for (const it of [client, again]) assert.equal(it.all("connecting").length, 1);
  },

  "a connection outlives its token by a refresh": async (at) => {
    const { t, stage, sdk, alice, bob } = at;
    const room = await stage.room(alice, bob);
    const token = await stage.token(alice, 10);
    const client = await stage.open(t, sdk, token, { getToken: true });
    await client.subscribe(room.channel);
    await client.nth(0, "token");
    client.send({ do: "token", token: await stage.token(alice, 600) });
    const end = (secondsOf(token) + GRACE + 1) * 1000;
    await until(() => Date.now() > end, "the end of the first token", 20_000);
    await stage.write(bob, "past the first token", room);
    await client.arrival(room.channel, "past the first token");
    assert.equal(client.all("token").length, 1);
    undisturbed(client);
  },

  "after an expired token, to connect and to refresh, the SDK fetches another": async (at) => {
    const { t, stage, sdk, alice, bob } = at;
    const room = await stage.room(alice, bob);
    const expired = await stage.token(alice, 1);
    await until(() => Date.now() > secondsOf(expired) * 1000 + 1000, "the token to expire");
    const client = await stage.open(t, sdk, expired, { getToken: true });
    client.startSubscribing(room.channel);
    for (const [n, token] of [() => stage.token(alice, 4), () => expired, () => stage.token(alice, 600)].entries()) {
      await client.nth(n, "token");
      client.send({ do: "token", token: await token() });
    }
    await client.connected(1);
    const codes = client.all("connecting").map(({ code }) => code);
    assert.deepEqual(codes, [0, 3005]);
    await client.nth(1, "subscribed", room.channel);
    await stage.write(bob, "at last", room);
    await client.arrival(room.channel, "at last");
    assert.deepEqual([client.all("token").length, client.all("disconnected")], [3, []]);
  },

  "a bad token ends the connection, and the SDK stays away": async ({ t, stage, sdk, alice }) => {
    const [header, claims, signature] = alice.token.split(".");
    const forged = [header, claims, signature.split("").reverse().join("")].join(".");
    for (const token of [forged, "no token"]) {
      const client = await stage.open(t, sdk, token);
      const { code, reason } = await client.nth(0, "disconnected");
      assert.deepEqual([code, reason], [3500, "invalid token"]);
      assert.deepEqual([client.all("connecting").length, client.all("connected")], [1, []]);
    }
  },
};
