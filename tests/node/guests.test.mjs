// The published `centrifuge` package without a token, as a guest, and then with a token.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { ACCOUNTS, PASSWORD } from "../pocketbase/harness.mjs";
import { Lab, freePort, next } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
let pocketbase, gateway, ann;

before(
  lab.explained(async () => {
    const port = await freePort();
    pocketbase = await lab.pocketbase(`http://127.0.0.1:${port}`, ACCOUNTS);
    gateway = await lab.gateway("gateway", { port, pocketbase, env: { GATEWAY_MAX_GUESTS_PER_IP: "2" } });
    const account = { email: "ann@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
    await pocketbase.create("members", account);
    ann = await pocketbase.login(account.email, PASSWORD, "members");
  }),
);
after(() => lab.stop());

function client(t, options) {
  const it = new Centrifuge(gateway.websocket, {
    websocket: WebSocket,
    minReconnectDelay: 50,
    maxReconnectDelay: 300,
    ...options,
  });
  t.after(() => it.disconnect());
  return it;
}

check("a guest connects without a token, is told of changes, and logs in on a new connection", async (t) => {
  const [open, closed] = [
    await pocketbase.create("rooms", { visibility: "public" }),
    await pocketbase.create("rooms", { visibility: "members" }),
  ];
  const it = client(t);
  it.connect();
  await it.ready(10_000);
  const [room, members] = [it.newSubscription(`room:${open.id}`), it.newSubscription(`room:${closed.id}`)];
  room.subscribe();
  await room.ready(10_000);
  const published = next(room, "publication", ({ data }) => data.collection === "notes");
  await pocketbase.create("notes", { room: open.id, text: "hello" });
  assert.equal((await published).data.record.text, "hello");
  assert.equal(Object.values((await room.presence()).clients)[0].user, "");
  await assert.rejects(room.publish({ type: "typing" }), { code: 103 });
  const refused = next(members, "unsubscribed");
  members.subscribe();
  assert.equal((await refused).code, 103);

  it.disconnect();
  it.setToken(ann.token);
  it.connect();
  await it.ready(10_000);
  members.subscribe();
  await members.ready(10_000);
  await room.ready(10_000);
  assert.equal(Object.values((await room.presence()).clients)[0].user, ann.id);
  await room.publish({ type: "typing" });
});

check("a guest beyond the limit retries until there is room", async (t) => {
  const [first, second, third] = [client(t), client(t), client(t)];
  for (const it of [first, second]) {
    it.connect();
    await it.ready(10_000);
  }
  const refused = next(third, "error");
  third.connect();
  const { type } = await refused;
  assert.deepEqual([type, third.state], ["connect", "connecting"]);
  first.disconnect();
  await third.ready(10_000);
});
