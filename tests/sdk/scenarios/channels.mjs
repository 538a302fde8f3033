// The content of channels: publications, signals, history, presence, statuses.

import assert from "node:assert/strict";
import { TEXT, peerOf, subscriber, undisturbed } from "./cast.mjs";

export const channels = {
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
    const content = TEXT.repeat(1200); // longer than two bytes of a frame's length can tell
    assert.ok(Buffer.byteLength(content) > 65_535);
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
    await client.call("rpc", { method: "status.set", data: { status: "invisible" } });
    await observer.until(() => seen().length === 3, "the third status");
    assert.deepEqual(seen(), ["online", "dnd", "offline"]);
    const { data: asked } = await observer.call("rpc", { method: "status.get", data: { users: [carol.id, "nobody"] } });
    assert.deepEqual(Object.keys(asked.statuses), [carol.id]);
    assert.equal(asked.statuses[carol.id].status, "offline");
    assert.ok(Math.abs(asked.statuses[carol.id].last_seen - Date.now()) < 20_000);
    const { code } = await client.failure("rpc", { method: "no such method", data: {} });
    assert.equal(code, 104);
    undisturbed(client);
  },
};
