// Updates channels for large teams: the time of the first subscribe, for one user with many records and for many users
// at once, and the time until a new membership arrives. The kanban tool's rule decides access through a parent's
// memberships: `workspace.memberships_via_workspace.member ?= @request.auth.id`.
//
//   cargo build --release && POCKETBASE=$(deploy/get-pocketbase.sh) node benches/updates.mjs
//
// BOARDS (8000), USERS (200) and EACH (1000) change the sizes.

import { createRequire } from "node:module";
import { KANBAN, PASSWORD } from "../tests/pocketbase/harness.mjs";
import { Lab, freePort, until } from "../tests/node/harness.mjs";

const require = createRequire(new URL("../tests/node/package.json", import.meta.url));
const [{ Centrifuge }, WebSocket] = [require("centrifuge"), require("ws")];
const BOARDS = Number(process.env.BOARDS || 8000);
const USERS = Number(process.env.USERS || 200);
const EACH = Number(process.env.EACH || 1000);
const ROUNDS = 5;

const lab = new Lab();
const port = await freePort();
const pb = await lab.pocketbase(`http://127.0.0.1:${port}`, KANBAN);
const gateway = await lab.gateway("gateway", { port, pocketbase: pb, env: { GATEWAY_MAX_CONNECTIONS_PER_IP: "0" } });

const must = async (method, target, body) => {
  const answer = await pb.call(method, target, body, pb.root);
  if (answer.status >= 300) throw new Error(`${method} ${target}: ${answer.status} ${JSON.stringify(answer.body)}`);
  return answer.body;
};
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];

/** A member with a token, which the superuser obtains. */
async function member(name) {
  const data = { email: `${name}@example.com`, name, password: PASSWORD, passwordConfirm: PASSWORD, plan: "free" };
  const { id } = await pb.create("members", data);
  const { token } = await must("POST", `/api/collections/members/impersonate/${id}`, { duration: 3600 });
  return { id, token };
}

let boards = 0;
async function fill(workspace, count) {
  await must("POST", "/kanban/boards", { workspace, from: boards, to: boards + count });
  boards += count;
}

/** Subscribes to board-updates on a separate connection; returns the milliseconds from the subscribe to its answer. */
async function look({ token }) {
  const client = new Centrifuge(gateway.websocket, { token, websocket: WebSocket });
  const subscription = client.newSubscription("board-updates");
  const it = { client, subscription, errors: 0, events: [] };
  subscription.on("error", () => (it.errors += 1)).on("publication", ({ data }) => it.events.push(data));
  client.connect();
  await client.ready(30_000);
  const start = performance.now();
  subscription.subscribe();
  await subscription.ready(60_000);
  return Object.assign(it, { ms: performance.now() - start, at: performance.now() });
}

try {
  const owner = await member("owner");
  const workspace = async () => (await pb.create("workspaces", { name: "W", owner: owner.id })).id;

  const large = await workspace();
  const ben = await member("ben");
  await pb.create("memberships", { workspace: large, member: ben.id });
  await fill(large, BOARDS);
  const times = [];
  for (let i = 0; i < ROUNDS; i++) {
    const it = await look(ben);
    times.push(it.ms);
    it.client.disconnect();
    // Without subscriptions, no cached answer is shared.
    await until(async () => (await gateway.metric("gateway_subscriptions")) === 0, "the end of the subscription");
  }
  console.log(
    `one user, ${BOARDS} boards: subscribed after ${median(times).toFixed(0)} ms (median of ${ROUNDS}; ${times.map(Math.round)})`,
  );

  const shared = await workspace();
  await fill(shared, EACH);
  const users = [];
  for (let i = 0; i < USERS; i++) {
    const user = await member(`user${i}`);
    await pb.create("memberships", { workspace: shared, member: user.id });
    users.push(user);
  }
  const start = performance.now();
  const all = await Promise.all(users.map(look));
  const last = Math.max(...all.map(({ at }) => at)) - start;
  const errors = all.reduce((sum, it) => sum + it.errors, 0);
  console.log(
    `${USERS} users, ${EACH} boards each, at once: all subscribed after ${last.toFixed(0)} ms, ${errors} errors on the way`,
  );

  const other = await workspace();
  const [board] = [await pb.create("boards", { workspace: other, title: "new", visibility: "workspace" })];
  const told = [];
  for (let i = 0; i < ROUNDS; i++) {
    const { events } = all[i];
    const begun = performance.now();
    await pb.create("memberships", { workspace: other, member: users[i].id });
    await until(() => events.some(({ record }) => record.id === board.id), "the new board", 20_000);
    told.push(performance.now() - begun);
  }
  console.log(
    `a new membership while they listen: told after ${median(told).toFixed(0)} ms (median of ${ROUNDS}; ${told.map(Math.round)})`,
  );
  for (const { client } of all) client.disconnect();
} finally {
  await lab.stop();
}
