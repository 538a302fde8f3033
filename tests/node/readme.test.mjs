// The browser example of README.md, word for word, against the demo of deploy/quickstart.sh.

import assert from "node:assert/strict";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import PocketBaseSdk from "pocketbase";
import WebSocket from "ws";
import { Lab, next, root, until } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
let facts;

before(
  lab.explained(async () => {
    facts = await lab.quickstart();
  }),
);
after(() => lab.stop());

/** The example with the ports of this run. */
function example() {
  const [, block] = readFileSync(join(root, "README.md"), "utf8").match(/^```js\n(.*?)^```$/ms);
  const ports = { 8090: new URL(facts.pocketbase).port, 8000: new URL(facts.websocket).port };
  let text = block;
  for (const [printed, port] of Object.entries(ports)) {
    assert.equal(text.split(`://127.0.0.1:${printed}`).length, 2, `one URL with port ${printed}`);
    text = text.replace(`://127.0.0.1:${printed}`, `://127.0.0.1:${port}`);
  }
  return text;
}

/** Runs the example in a process of its own. Browsers have a WebSocket; older versions of Node.js get one. */
function run() {
  symlinkSync(join(root, "tests/node/node_modules"), join(lab.folder, "node_modules"));
  writeFileSync(
    join(lab.folder, "websocket.mjs"),
    'import WebSocket from "ws";\nglobalThis.WebSocket ??= WebSocket;\n',
  );
  writeFileSync(join(lab.folder, "example.mjs"), example());
  return lab.start("example", process.execPath, ["--import", "./websocket.mjs", "example.mjs"]);
}

/** A connected client of Bob's. */
async function bobsClient(t) {
  const { email, password } = facts.users.find((user) => user.email.startsWith("bob"));
  const pb = new PocketBaseSdk(facts.pocketbase);
  const { token } = await pb.collection("users").authWithPassword(email, password);
  const client = new Centrifuge(facts.websocket, { websocket: WebSocket, token });
  t.after(() => client.disconnect());
  client.connect();
  await client.ready(10_000);
  return client;
}

check("the browser example runs as printed", async (t) => {
  const alice = facts.users.find((user) => user.email.startsWith("alice")).id;
  const program = run();
  const prints = (text) =>
    until(
      () => {
        if (program.end) throw new Error(`the example ended: ${program.end}`);
        return program.output.match(text);
      },
      `the example to print ${text}`,
      15_000,
    );

  await prints(/^loaded \d+ messages$/m);
  await prints(/^Bob is offline$/m);
  await prints(new RegExp(`^${alice} is typing$`, "m"));
  await prints(/^create messages \{[^}]*content: 'Hi'/m);

  const bob = await bobsClient(t);
  await prints(/^Bob is online$/m);
  const status = bob.newSubscription(`status:${alice}`);
  const seen = next(status, "subscribed");
  status.subscribe();
  assert.equal((await seen).data.status, "dnd");
  assert.doesNotMatch(program.output, /error/i);
});
