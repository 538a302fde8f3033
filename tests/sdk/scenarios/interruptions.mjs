// Interruptions of the network between the client and the gateway.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { TEXT, subscriber } from "./cast.mjs";

/** Length of a cut or a stall in milliseconds. */
const INTERRUPTION = 5000;

export const interruptions = {
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

  // Two gateways ping more often: the client notices the stall, and connects to the other gateway.
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
};
