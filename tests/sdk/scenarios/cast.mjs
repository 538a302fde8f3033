// Rooms, clients and assertions that several scenarios share.

import assert from "node:assert/strict";

/** Scripts of several lengths in UTF-8, and characters that JSON and JavaScript treat specially. */
export const TEXT = 'größe, привет, 你好, 🦀, "quoted\\", \u2028, </script>';

/** A room of Alice and Bob, with Alice's client subscribed. */
export async function subscriber({ t, stage, sdk, alice, bob }, options) {
  const room = await stage.room(alice, bob);
  const client = await stage.open(t, sdk, alice.token, options);
  await client.subscribe(room.channel);
  return { client, room };
}

/** Bob's client on the first gateway, in the other encoding, subscribed. */
export async function peerOf({ t, stage, sdk, bob }, channel) {
  const peer = await stage.peer(t, sdk, bob.token);
  await peer.subscribe(channel);
  return peer;
}

/** Fails if the connection was lost or an error was reported. */
export function undisturbed(client) {
  const unexpected = client.events.filter(({ event }) => ["disconnected", "error", "unsubscribed"].includes(event));
  assert.deepEqual(unexpected, []);
  assert.equal(client.all("connecting").length, 1);
  assert.equal(client.all("connected").length, 1);
}
