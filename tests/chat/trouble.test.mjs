// The chat while something is broken: no network, a killed gateway, a removed member, many tabs, a blocked transport.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { ChatLab, composer, connected, inChat, log, message, say, sent, until } from "./harness.mjs";

const lab = new ChatLab();
const check = (name, body) => test(name, lab.explained(body));
let alice, bob;
before(
  lab.explained(async () => {
    await lab.open();
    ({ alice, bob } = await lab.pair());
  }),
);
after(() => lab.stop());

/** The texts of all messages on the screen, in order. */
const texts = (page, pattern) =>
  log(page)
    .locator("article")
    .evaluateAll(
      (articles, source) => articles.map((one) => one.innerText.match(source)?.[0]).filter(Boolean),
      pattern,
    );

check("a user who was offline comes back with everything in order, and their own messages are sent once", async (t) => {
  const context = bob.context();
  t.after(() => context.setOffline(false));
  await say(alice, "order 1");
  await message(bob, "order 1").waitFor();

  await context.setOffline(true);
  await bob.getByText("You are offline").waitFor();
  await bob.getByText("2 members", { exact: true }).waitFor(); // nobody knows who is online
  assert.equal(await bob.getByRole("navigation").locator("[data-status=online]").count(), 0);
  for (const number of [2, 3, 4]) await say(alice, `order ${number}`);
  await say(bob, "written offline");
  assert.equal(await message(bob, "written offline").getAttribute("data-state"), "pending");
  await context.setOffline(false);
  await connected(bob);
  await message(bob, "order 4").waitFor();
  await sent(bob, "written offline");
  await message(alice, "written offline").waitFor();
  assert.deepEqual(await texts(bob, "order \\d|written offline"), [
    "order 1",
    "order 2",
    "order 3",
    "order 4",
    "written offline",
  ]);
  assert.equal(await message(alice, "written offline").count(), 1);
});

check("a user who is removed and added again is back without a reload", async () => {
  await say(alice, "before the removal");
  await message(bob, "before the removal").waitFor();
  await composer(bob).fill("half a thought");
  await alice.getByRole("button", { name: "Room details" }).click();
  await alice.getByRole("button", { name: "Actions for Bob" }).click();
  await alice.getByRole("menuitem", { name: "Remove from the room" }).click();
  await alice.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await bob.getByText("You are not in this room anymore").waitFor();
  await say(alice, "while Bob was out");
  await alice.getByRole("button", { name: "Invite" }).click();
  await alice.getByRole("textbox", { name: "Invite people" }).fill("Bob");
  await alice.getByRole("checkbox", { name: /Bob/ }).check();
  await alice.getByRole("dialog").getByRole("button", { name: "Invite" }).click();
  await message(bob, "while Bob was out").waitFor();
  assert.equal(await composer(bob).inputValue(), "half a thought");
  await say(alice, "Bob is back");
  await message(bob, "Bob is back").waitFor();
  await composer(bob).fill("");
});

/** Process id of the lab's gateway. */
function gatewayProcess() {
  const listens = `--listen=${new URL(lab.facts.gateway).host}`;
  const id = readdirSync("/proc").find((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "utf8").includes(listens);
    } catch {
      return false; // ended meanwhile
    }
  });
  assert.ok(id, `no process with ${listens}`);
  return Number(id);
}

check("the gateway is killed and restarted under an open page: nothing typed is lost", async () => {
  await say(alice, "before the crash");
  await message(bob, "before the crash").waitFor();
  process.kill(gatewayProcess(), "SIGKILL");
  await say(bob, "written during the crash");
  await composer(bob).fill("a draft during the crash");
  await message(alice, "written during the crash").waitFor();
  assert.equal(await composer(bob).inputValue(), "a draft during the crash");
  await bob.reload();
  await inChat(bob);
  assert.equal(await composer(bob).inputValue(), "a draft during the crash");
  await connected(alice);
  await say(alice, "after the crash");
  await message(bob, "after the crash").waitFor();
  assert.deepEqual(await texts(bob, "(before|during|after) the crash"), [
    "before the crash",
    "during the crash",
    "after the crash",
  ]);
});

check("twenty tabs of one user all show a message, once", async (t) => {
  const context = await lab.context(t);
  context.setDefaultTimeout(60_000);
  const open = async () => {
    const tab = await lab.page(context);
    await tab.goto(`${lab.facts.pocketbase}/?user=bob`);
    await inChat(tab);
    return tab;
  };
  const tabs = [];
  while (tabs.length < 20) tabs.push(...(await Promise.all([open(), open(), open(), open()])));
  const text = `for twenty tabs ${Date.now()}`;
  await say(alice, text);
  for (const tab of tabs) {
    await message(tab, text).waitFor();
    assert.equal(await message(tab, text).count(), 1);
    assert.deepEqual(tab.problems, []);
  }
});

check("the chat works where PocketBase's SSE is blocked, and where only SSE gets through", async (t) => {
  const [blocked, only] = [await lab.context(t), await lab.context(t)];
  await blocked.route("**/api/realtime", (route) => route.abort());
  const [one, other] = [await lab.page(blocked), await lab.page(only)];
  await one.goto(`${lab.facts.pocketbase}/?user=bob`);
  await other.goto(`${lab.facts.pocketbase}/?user=alice&transport=pocketbase`);
  await Promise.all([one, other].map(inChat));
  await say(one, "through the gateway");
  await message(other, "through the gateway").waitFor();
  await say(other, "through SSE");
  await message(one, "through SSE").waitFor();
});

check("a message that the server refuses is marked, kept, and can be sent again", async (t) => {
  const { id } = lab.user("bob");
  const muted = (until) => lab.api("PATCH", `users/records/${id}`, { muted_until: until });
  t.after(() => muted(""));
  await muted(new Date(Date.now() + 3_600_000).toISOString().replace("T", " "));
  await say(bob, "refused at first");
  const failed = message(bob, "refused at first");
  await failed.getByText("You are muted").waitFor();
  await muted("");
  await failed.getByRole("button", { name: "Send again" }).click();
  await sent(bob, "refused at first");
  await until(async () => (await failed.count()) === 1, "one copy");
});
