// The cost of the hooks for one create: three servers with the same schema side by side, one create on each in turn, so
// that other load affects the servers alike.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { PocketBase } from "../pocketbase/harness.mjs";
import { Lab, freePort } from "./harness.mjs";

const ROUNDS = Number(process.env.ROUNDS || 300);

function withoutMessages(folder) {
  const file = path.join(folder, "pb_hooks/gateway.config.js");
  writeFileSync(file, readFileSync(file, "utf8").replace(/^ +messages: \[.*$/m, ""));
}

test("cost of a create", async () => {
  const lab = new Lab();
  const port = await freePort();
  const servers = [
    { name: "not relayed", pb: await PocketBase.start({ prepare: withoutMessages }), times: [] },
    { name: "outbox, gateway away", pb: await PocketBase.start(), times: [] },
    { name: "outbox and delivery", pb: await PocketBase.start({ gatewayUrl: `http://127.0.0.1:${port}` }), times: [] },
  ];
  try {
    await lab.gateway("gateway", { port, pocketbase: servers[2].pb });
    for (const server of servers) {
      server.user = await server.pb.user("ann");
      server.room = await server.pb.create("rooms", { name: "r", type: "private", owner: server.user.id }, server.user);
    }
    for (let round = -50; round < ROUNDS; round++) {
      for (const { pb, user, room, times } of servers) {
        const message = { room: room.id, author: user.id, content: "x".repeat(256), type: "text" };
        const start = performance.now();
        await pb.create("messages", message, user);
        if (round >= 0) times.push(performance.now() - start); // the first rounds warm up
      }
    }
    for (const server of servers) {
      server.times.sort((a, b) => a - b);
      server.p50 = server.times[ROUNDS >> 1];
      const added = server.p50 - servers[0].p50;
      console.log(`${server.name.padEnd(22)} p50 ${server.p50.toFixed(2)} ms, +${added.toFixed(2)} ms`);
    }
    assert.ok(servers[2].p50 - servers[0].p50 < 5, "far from the aim of 1 ms");
  } finally {
    await lab.stop();
    for (const { pb } of servers) await pb.stop();
  }
});
