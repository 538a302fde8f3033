// The time for a page to subscribe to each of its rooms: the npm SDK, a real PocketBase, and a gateway just started,
// with cold caches. Measured from the open socket to the last subscribe reply. Several builds in turn in one run:
//
//     node tests/node/first-load.bench.mjs [before=PATH after=PATH ...]
//
// ROOMS (default 10,100,256), ROUNDS (5), REDIS=1 with a Redis.

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { Lab, freePort, gatewayBinary, next } from "./harness.mjs";

const sizes = (process.env.ROOMS ?? "10,100,256").split(",").map(Number);
const rounds = Number(process.env.ROUNDS ?? 5);
const builds = process.argv.slice(2).map((argument) => argument.split("="));
if (!builds.length) builds.push(["this build", gatewayBinary]);

const median = (times) => times.toSorted((a, b) => a - b)[times.length >> 1];

async function load(websocket, token, rooms) {
  let opened;
  class Timed extends WebSocket {
    constructor(...args) {
      super(...args);
      this.once("open", () => (opened ??= performance.now()));
    }
  }
  const it = new Centrifuge(websocket, { websocket: Timed, token });
  let errors = 0;
  const subscribed = rooms.map((id) => {
    const subscription = it.newSubscription(`room:${id}`);
    subscription.on("error", () => (errors += 1));
    const live = next(subscription, "subscribed", () => true, 60_000);
    subscription.subscribe();
    return live;
  });
  it.connect();
  await Promise.all(subscribed);
  const took = performance.now() - opened;
  it.disconnect();
  return { took, errors };
}

const lab = new Lab();
try {
  const port = await freePort();
  const redisUrl = process.env.REDIS ? await lab.redis() : undefined;
  const pocketbase = await lab.pocketbase(`http://127.0.0.1:${port}`);
  const user = await pocketbase.user("alice");
  const rooms = [];
  for (let i = 0; i < Math.max(...sizes); i++) {
    const room = { name: "Room", type: "private", owner: user.id };
    rooms.push((await pocketbase.create("rooms", room, user)).id);
  }
  const results = new Map();
  for (let round = 0; round < rounds; round++) {
    for (const size of sizes) {
      for (const [name, program] of builds) {
        const gateway = await lab.gateway(`${name}-${round}-${size}`, { port, pocketbase, redisUrl, program });
        const { took, errors } = await load(gateway.websocket, user.token, rooms.slice(0, size));
        await gateway.stop();
        const key = `${size} rooms, ${name}`;
        const result = results.get(key) ?? { times: [], errors: 0 };
        result.times.push(took);
        result.errors += errors;
        results.set(key, result);
      }
    }
  }
  for (const [key, { times, errors }] of results) {
    const [low, high] = [Math.min(...times), Math.max(...times)];
    const range = `${low.toFixed()} to ${high.toFixed()}`;
    console.log(`${key}: median ${median(times).toFixed()} ms (${range}), ${errors} errors in ${rounds} rounds`);
  }
} finally {
  await lab.stop();
}
