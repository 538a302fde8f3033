// Many writers at once, with the hooks and a real gateway: each event arrives by a post, and once.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { PocketBase, until } from "../pocketbase/harness.mjs";
import { Lab, freePort } from "./harness.mjs";

const WRITERS = 50;
const WRITES = 12; // per writer

/** Only posts may bring events, even on a slow machine: no timeouts, no reads of the outbox in between. */
function patient(folder) {
  const file = path.join(folder, "pb_hooks/gateway.config.js");
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace("module.exports = {", "module.exports = {\n  delivery: { timeoutSeconds: 20 },"));
}

/** A gateway's counter, as an object from the value of its only label to the count. */
async function counters(gateway, name) {
  const text = await (await fetch(`${gateway.admin}/metrics`)).text();
  const values = [...text.matchAll(new RegExp(`^${name}\\{[^"]*"([^"]*)"\\} (\\d+)`, "gm"))];
  return Object.fromEntries(values.map(([, label, value]) => [label, Number(value)]));
}

test(`${WRITERS} writers: every event is posted, none twice`, async () => {
  const lab = new Lab();
  const port = await freePort();
  const gatewayUrl = `http://127.0.0.1:${port}`;
  const pb = await PocketBase.start({ prepare: patient, gatewayUrl, arguments: [`--hooksPool=${2 * WRITERS}`] });
  try {
    const user = await pb.user("ann");
    const room = await pb.create("rooms", { name: "r", type: "private", owner: user.id }, user);
    const gateway = await lab.gateway("gateway", { port, pocketbase: pb, env: { GATEWAY_PULL_INTERVAL: "3600" } });
    const events = () => counters(gateway, "gateway_relay_events_total");
    const before = await events();

    const message = { room: room.id, author: user.id, content: "x".repeat(256), type: "text" };
    const writer = async () => {
      for (let i = 0; i < WRITES; i++) await pb.create("messages", message, user);
    };
    await Promise.all(Array.from({ length: WRITERS }, writer));

    const posted = async () => ((await events()).hook ?? 0) - (before.hook ?? 0);
    await until(async () => (await posted()) >= WRITERS * WRITES, "all events", 20_000);
    assert.equal(await posted(), WRITERS * WRITES);
    const { repeat = 0, pull = 0, dropped = 0 } = await events();
    assert.deepEqual({ repeat, pull: pull - (before.pull ?? 0), dropped }, { repeat: 0, pull: 0, dropped: 0 });
    const refused = Object.values(await counters(gateway, "gateway_hooks_refused_total"));
    assert.ok(refused.length > 0 && refused.every((count) => count === 0), `no post was refused: ${refused}`);
  } finally {
    await lab.stop();
    await pb.stop();
  }
});
