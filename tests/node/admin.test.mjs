// The admin page in a real Chromium: on a phone and on a desktop, in English and in Russian.
//
// $SCREENSHOTS names a folder for pictures of the pages.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import WebSocket from "ws";
import { startBrowser } from "./browser.mjs";
import { Lab, freePort, next, until } from "./harness.mjs";

const TOKEN = "an admin token of the tests, long enough to pass";
const HTML = "room:<img/src=x/onerror=document.title='attacked'>";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
let pocketbase, gateway, browser, alice, eve, room, reader;

before(
  lab.explained(async () => {
    const [port, redisUrl] = [await freePort(), await lab.redis()];
    pocketbase = await lab.pocketbase(`http://127.0.0.1:${port}`);
    const env = { GATEWAY_ADMIN_TOKEN: TOKEN };
    gateway = await lab.gateway("gateway", { port, pocketbase, redisUrl, env });
    browser = await startBrowser(lab);
    [alice, eve] = [await pocketbase.user("alice"), await pocketbase.user("eve")];
    room = (await pocketbase.create("rooms", { name: "Room", type: "private", owner: alice.id }, alice)).id;
    reader = await connect(alice).subscribed(`room:${room}`);
    const stranger = connect(eve);
    for (const channel of [`room:${room}`, HTML]) await stranger.refused(channel);
    await pocketbase.create("messages", { room, author: alice.id, content: "hunter2", type: "text" }, alice);
  }),
);
after(() => lab.stop());

/** A client of the SDK, disconnected with the lab. */
function connect(user) {
  const client = new Centrifuge(gateway.websocket, { websocket: WebSocket, token: user.token });
  lab.defer(async () => client.disconnect());
  client.connect();
  const begin = (channel, event) => {
    const subscription = client.newSubscription(channel);
    const done = next(subscription, event);
    subscription.subscribe();
    return done.then(() => subscription);
  };
  return {
    subscribed: (channel) => begin(channel, "subscribed"),
    refused: (channel) => begin(channel, "unsubscribed"),
  };
}

/** Opens the page in a window of this width. `problems` collects errors and violations of the page's policy. */
async function open(t, { width = 1280, language = "en-GB" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 844 },
    locale: language,
    isMobile: width < 500,
  });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.problems = [];
  page.on("pageerror", (error) => page.problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  const response = await page.goto(gateway.admin);
  page.policy = response.headers()["content-security-policy"];
  await page.locator("#state.good").waitFor();
  return page;
}

async function picture(page, name) {
  if (!process.env.SCREENSHOTS) return;
  mkdirSync(process.env.SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), fullPage: true });
}

async function find(page, user, button) {
  await page.locator("#key").fill(user);
  await page.getByRole("button", { name: button, exact: true }).click();
  await page.locator("#user h3").first().waitFor();
}

for (const [language, words] of [
  [
    "en-GB",
    {
      state: "ready",
      find: "Find",
      title: "Last refusals",
      connections: "Connections",
      everywhere: "on all gateways: 1",
    },
  ],
  [
    "ru-RU",
    {
      state: "готов",
      find: "Найти",
      title: "Последние отказы",
      connections: "Подключения",
      everywhere: "на всех шлюзах: 1",
    },
  ],
]) {
  for (const width of [390, 1280]) {
    check(`the page shows the gateway in ${language} at ${width} pixels`, async (t) => {
      const page = await open(t, { width, language });
      assert.equal(await page.locator("#state").textContent(), words.state);
      await page.getByRole("heading", { name: words.title, exact: true }).first().waitFor();
      await page.locator("#figures dt", { hasText: words.connections }).waitFor();
      await page
        .locator("#channels td", { hasText: `room:${room}` })
        .first()
        .waitFor();
      // A rate needs two overviews.
      await until(async () => /\d/.test(await page.locator("#figures dd").nth(3).textContent()), "a rate", 10_000);
      await find(page, alice.id, words.find);
      await page
        .locator("#user td", { hasText: `room:${room}` })
        .first()
        .waitFor();
      await page.locator("#user p", { hasText: words.everywhere }).waitFor();
      await picture(page, `${language}-${width}`);
      const { wide, inner } = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth,
        inner: innerWidth,
      }));
      assert.ok(wide <= inner, `${wide} pixels in a window of ${inner}`);
      assert.ok(!(await page.content()).includes("hunter2"), "no content of messages");
      assert.deepEqual(page.problems, []);
    });
  }
}

check("names from clients are shown as text, and no foreign script runs", async (t) => {
  const page = await open(t);
  await find(page, eve.id, "Find");
  await page.locator("#user td", { hasText: HTML }).waitFor();
  await page.locator("#refusals td", { hasText: HTML }).waitFor();
  assert.equal(await page.locator("td img").count(), 0);
  assert.equal(await page.title(), "konvert-gateway");
  assert.deepEqual(page.problems, []);
  assert.match(page.policy, /default-src 'none'/);
  assert.doesNotMatch(page.policy, /unsafe|\*/);
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "document.title = 'attacked'";
    document.body.append(script);
  });
  assert.equal(await page.title(), "konvert-gateway");
});

check("a test message needs the token and reaches the subscribers", async (t) => {
  const page = await open(t);
  const publish = async (token) => {
    await page.getByLabel("Channel").fill(`room:${room}`);
    await page.getByLabel("Text").fill("is anybody there?");
    await page.getByLabel("Token").fill(token);
    await page.getByRole("button", { name: "Publish", exact: true }).click();
  };
  await publish("wrong");
  await page.locator("#published.bad").waitFor();
  const arrived = next(reader, "publication", ({ data }) => data.type === "test");
  await publish(TOKEN);
  await page.locator("#published.good").waitFor();
  const { data, info } = await arrived;
  assert.deepEqual([data, info.user], [{ type: "test", text: "is anybody there?" }, "$server"]);
});

check("the language is kept, and a silent gateway is noticed", async (t) => {
  const page = await open(t);
  await page.getByRole("button", { name: "Русский", exact: true }).click();
  await page.getByRole("heading", { name: "Последние отказы", exact: true }).first().waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "Последние отказы", exact: true }).first().waitFor();
  await page.context().setOffline(true);
  await page.locator("#state.bad", { hasText: "шлюз не отвечает" }).waitFor();
  await page.context().setOffline(false);
  await page.locator("#state.good").waitFor();
});
