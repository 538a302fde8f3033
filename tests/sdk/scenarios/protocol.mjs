// Subscriptions with options of the protocol, and refused subscriptions.

import assert from "node:assert/strict";
import { until } from "../../node/harness.mjs";
import { TEXT, peerOf, subscriber, undisturbed } from "./cast.mjs";

export const protocol = {
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

  "getState is asked for a position, and again if that is unrecoverable": async ({ t, stage, sdk, alice, bob }) => {
    const room = await stage.room(alice, bob);
    await stage.write(bob, "before", room);
    const client = await stage.open(t, sdk, alice.token);
    for (const [channel, positions, recovered, before] of [
      [
        room.channel,
        [
          { offset: 1, epoch: "gone" },
          { offset: 0, epoch: "" },
        ],
        true,
        ["before"],
      ],
      ["room-updates", [{ offset: 0, epoch: "" }], false, []],
    ]) {
      client.startSubscribing(channel, { getState: true });
      for (const [n, position] of positions.entries()) {
        await client.nth(n, "state", channel);
        client.send({ do: "state", channel, position });
      }
      const subscribed = await client.nth(0, "subscribed", channel);
      assert.deepEqual([subscribed.wasRecovering, subscribed.recovered], [true, recovered]);
      // A later reply: the publications of the subscribe reply have arrived before.
      await client.call("rpc", { method: "status.get", data: { users: [] } });
      assert.deepEqual(client.messages(channel), before);
      assert.equal(client.all("state", channel).length, positions.length);
    }
    await stage.write(bob, "after", room);
    await client.arrival(room.channel, "after");
    assert.deepEqual(client.messages(room.channel), ["before", "after"]);
  },

  "a tag filter is refused": async ({ t, stage, sdk, alice }) => {
    const { channel } = await stage.room(alice);
    const client = await stage.open(t, sdk, alice.token);
    client.startSubscribing(channel, { tagsFilter: true });
    assert.equal((await client.nth(0, "unsubscribed", channel)).code, 108);
    assert.deepEqual(client.all("subscribed", channel), []);
  },

  "deltas are not used, and publications arrive whole": async ({ t, stage, sdk, alice, bob }) => {
    const room = await stage.room(alice, bob);
    const client = await stage.open(t, sdk, alice.token);
    await client.subscribe(room.channel, { delta: "fossil" });
    const { id } = await stage.write(bob, TEXT.repeat(10), room);
    await stage.pocketbase.update("messages", id, { content: `${TEXT.repeat(10)}!` }, bob);
    await client.arrival(room.channel, `${TEXT.repeat(10)}!`);
    assert.deepEqual(client.messages(room.channel), [TEXT.repeat(10), `${TEXT.repeat(10)}!`]);
    undisturbed(client);
  },
};
