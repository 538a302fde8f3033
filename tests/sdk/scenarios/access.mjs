// Tokens, bans and memberships.

import assert from "node:assert/strict";
import { until } from "../../node/harness.mjs";
import { GRACE } from "../stage.mjs";
import { undisturbed } from "./cast.mjs";

/** The end of a token, in seconds since 1970. */
const secondsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp;

export const access = {
  "a PocketBase token connects": async ({ t, stage, sdk, alice }) => {
    const client = await stage.open(t, sdk, await stage.login(alice));
    const { id, transport } = await client.connected();
    assert.ok(id.length > 10, id);
    if (transport) assert.equal(transport, sdk.transport);
    undisturbed(client);
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
