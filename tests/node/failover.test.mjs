// The gateway that gets the hooks' posts is stopped or dead, and another gateway on the same Redis goes on serving.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { Lab, freePort, until } from "./harness.mjs";

const url = (port) => `http://127.0.0.1:${port}`;

/** Two gateways, and a subscriber of a room on the second; `addresses(a, b)` is the GATEWAY_URL of the hooks. */
async function stage(lab, addresses, pullSeconds) {
  const [portA, portB, redisUrl] = [await freePort(), await freePort(), await lab.redis()];
  const pocketbase = await lab.pocketbase(addresses(url(portA), url(portB)));
  const env = { GATEWAY_PULL_INTERVAL: String(pullSeconds) };
  const a = await lab.gateway("gateway-a", { port: portA, pocketbase, redisUrl, env });
  const b = await lab.gateway("gateway-b", { port: portB, pocketbase, redisUrl, env });
  const alice = await pocketbase.user("alice");
  const room = await pocketbase.create("rooms", { name: "r", type: "private", owner: alice.id }, alice);
  const reader = new Centrifuge(b.websocket, { websocket: WebSocket, token: alice.token });
  lab.defer(async () => reader.disconnect());
  const arrived = [];
  const subscription = reader.newSubscription(`room:${room.id}`);
  subscription.on("publication", ({ data }) => arrived.push(data.record.content));
  subscription.subscribe();
  reader.connect();
  await subscription.ready(10_000);
  const written = [];
  const write = async (content) => {
    written.push(content);
    const message = { room: room.id, author: alice.id, content, type: "text" };
    await pocketbase.create("messages", message, alice);
    await until(() => arrived.includes(content), `"${content}" to arrive`, 30_000);
    assert.deepEqual(arrived, written);
  };
  return { a, b, pocketbase, write };
}

/** Runs the body with a new lab; prints the last lines of the servers' logs if the body fails. */
const check = (name, body) =>
  test(name, async () => {
    const lab = new Lab();
    try {
      await lab.explained(body)(lab);
    } finally {
      await lab.stop();
    }
  });

check("with several addresses, the hooks post to the next gateway at once", async (lab) => {
  // Reading the outbox does not help here.
  const { a, b, pocketbase, write } = await stage(lab, (a, b) => `${a}, ${b}/`, 3600);
  const posted = async () => {
    const text = await (await fetch(`${b.admin}/metrics`)).text();
    return Number(/^gateway_relay_events_total\{outcome="hook"\} (\d+)/m.exec(text)?.[1] ?? 0);
  };
  await write("both are there");
  const before = await posted();
  await a.freeze();
  await write("the first is silent");
  await write("and stays so");
  a.process.kill("SIGCONT");
  a.process.kill("SIGKILL");
  await write("the first is dead");
  assert.equal(await posted(), before + 3);
  const { body } = await pocketbase.gateway("POST", "/api/gateway/probe", {});
  assert.equal(body.url, url(a.port), "the address that does not work");
  assert.match(body.error, /connection refused/);
});

check("without another address, the outbox is read often while posts fail", async (lab) => {
  const { a, write } = await stage(lab, (a) => a, 10);
  await write("both are there");
  a.process.kill("SIGKILL");
  await write("late by up to one interval");
  const begun = Date.now();
  for (let i = 0; i < 5; i++) await write(`soon ${i}`);
  assert.ok(Date.now() - begun < 10_000, "five messages within one interval");
});
