// The quickstart with its demo page, in a real Chromium: two users in one room.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { startBrowser } from "./browser.mjs";
import { Lab, root } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
let facts, browser;

before(
  lab.explained(async () => {
    facts = await lab.quickstart();
    browser = await startBrowser(lab);
  }),
);
after(() => lab.stop());

/** Opens a page in a new browser profile. `reads` counts the page's reads of the room from PocketBase. */
async function open(t, query = "") {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  page.reads = 0;
  page.on("request", (request) => {
    if (request.method() === "GET" && request.url().includes("/messages/records")) page.reads += 1;
  });
  await page.goto(facts.pocketbase + query);
  return page;
}

async function enter(t, query) {
  const page = await open(t, query);
  await connected(page);
  return page;
}

const connected = (page) => page.locator("#state[data-state=connected]").waitFor();
const shown = (page, text) => page.getByRole("log").getByText(text, { exact: true }).waitFor();

async function send(page, text) {
  await page.getByRole("textbox", { name: "Message" }).fill(text);
  await page.keyboard.press("Enter");
  await shown(page, text);
}

check("a message appears at once for the other user, as text", async (t) => {
  const alice = await enter(t, "/?user=alice");
  const bob = await open(t);
  await bob.getByRole("button", { name: "Bob" }).click();
  await connected(bob);
  await send(bob, "hello from bob");
  await shown(alice, "hello from bob");

  const reads = bob.reads;
  await send(alice, "<b>hello</b> from alice");
  await shown(bob, "<b>hello</b> from alice");
  assert.equal(bob.reads, reads, "it came through the gateway, not by reading the room again");
  assert.equal(await bob.locator("#messages b").count(), 0);
  assert.deepEqual([...alice.problems, ...bob.problems], []);
});

check("typing is shown to the other user", async (t) => {
  const alice = await enter(t, "/?user=alice");
  const bob = await enter(t, "/?user=bob");
  await send(bob, "both are in the room");
  await shown(alice, "both are in the room");
  await bob.getByRole("textbox", { name: "Message" }).pressSequentially("I am");
  await alice.getByText("Bob is typing").waitFor();
});

check("a returning user sees the missed messages, without reading the room again", async (t) => {
  const alice = await enter(t, "/?user=alice");
  const bob = await enter(t, "/?user=bob");
  await send(alice, "before");
  await shown(bob, "before");
  await bob.getByRole("button", { name: "Go offline" }).click();
  await send(alice, "meanwhile");
  const reads = bob.reads;
  await bob.getByRole("button", { name: "Go online" }).click();
  await shown(bob, "meanwhile");
  assert.equal(bob.reads, reads);
});

check("a message written offline is shown once after reconnecting", async (t) => {
  const bob = await enter(t, "/?user=bob");
  await bob.getByRole("button", { name: "Go offline" }).click();
  await send(bob, "written offline");
  const reads = bob.reads;
  await bob.getByRole("button", { name: "Go online" }).click();
  await connected(bob);
  await send(bob, "written online");
  assert.equal(await bob.getByRole("log").getByText("written offline", { exact: true }).count(), 1);
  assert.equal(bob.reads, reads);
});

check("a user removed and added again is back without a reload", async (t) => {
  const alice = await enter(t, "/?user=alice");
  const bob = await enter(t, "/?user=bob");
  await send(alice, "before the removal");
  await shown(bob, "before the removal");
  const login = { identity: facts.superuser.email, password: facts.superuser.password };
  const { token } = await api("POST", "_superusers/auth-with-password", login);
  const user = facts.users.find(({ email }) => email.startsWith("bob")).id;
  const filter = encodeURIComponent(`room="${facts.room}" && user="${user}"`);
  const {
    items: [membership],
  } = await api("GET", `room_members/records?filter=${filter}`, undefined, token);
  await api("DELETE", `room_members/records/${membership.id}`, undefined, token);
  await bob.getByText("Not in the room").waitFor();
  await send(alice, "while Bob was out");
  await api("POST", "room_members/records", { room: facts.room, user, role: "member" }, token);
  await shown(bob, "while Bob was out");
  await send(alice, "Bob is back");
  await shown(bob, "Bob is back");
});

/** Calls PocketBase's API. */
async function api(method, target, body, token) {
  const response = await fetch(`${facts.pocketbase}/api/collections/${target}`, {
    method,
    headers: { "content-type": "application/json", ...(token && { authorization: token }) },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${target}: ${response.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

check("a user who comes later finds the earlier messages", async (t) => {
  const alice = await enter(t, "/?user=alice");
  await send(alice, "for later");
  const bob = await enter(t, "/?user=bob");
  await shown(bob, "for later");
});

check("the SDKs of the page are those of the npm packages", () => {
  for (const file of ["centrifuge/dist/centrifuge.js", "pocketbase/dist/pocketbase.es.mjs"]) {
    const published = readFileSync(join(root, "tests/node/node_modules", file));
    assert.ok(published.equals(readFileSync(join(root, "deploy/demo", basename(file)))), file);
  }
});
