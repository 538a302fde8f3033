// The chat in a real Chromium, on servers that `konvert-gateway dev` starts on free ports with new data.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { Lab, gatewayBinary, root, until } from "../node/harness.mjs";

const require = createRequire(new URL("../node/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const dist = join(root, "deploy/konvert/chat/dist");
export const shots = join(resolve(process.env.CARGO_TARGET_DIR ?? join(root, "target")), "screenshots");
export { until };

/** Servers, one browser, and the API of PocketBase. */
export class ChatLab extends Lab {
  async open() {
    mkdirSync(shots, { recursive: true });
    const options = [
      "dev",
      "--headless",
      `--site=${dist}`,
      "--port-gateway=0",
      "--port-pocketbase=0",
      `--data=${join(this.folder, "data")}`,
      `--pocketbase=${process.env.POCKETBASE}`,
    ];
    const server = this.start("dev", gatewayBinary, options, { stdout: "pipe" });
    let line = "";
    server.process.stdout.on("data", (chunk) => (line += chunk));
    await server.ready(() => line.endsWith("\n"), 60_000);
    this.facts = JSON.parse(line);
    this.dev = server;
    this.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-component-update"],
    });
    this.defer(() => this.browser.close());
    const { email, password } = this.facts.superuser;
    this.token = (await this.api("POST", "_superusers/auth-with-password", { identity: email, password })).token;
  }

  /** Keeps screenshots of the open pages if a test fails. */
  explained(body) {
    return super.explained(async (t) => {
      try {
        return await body(t);
      } catch (error) {
        const pages = this.browser?.contexts().flatMap((context) => context.pages()) ?? [];
        await Promise.allSettled(pages.slice(0, 4).map((page, index) => shot(page, `failed-${index}`)));
        throw error;
      }
    });
  }

  /** A new browser profile. `options`: as for playwright's newContext. */
  async context(t, options = {}) {
    const context = await this.browser.newContext({
      locale: "en-GB",
      viewport: { width: 1280, height: 800 },
      ...options,
    });
    context.setDefaultTimeout(20_000);
    t?.after(() => context.close());
    return context;
  }

  /** The chat in a new profile, logged in as a demo user. */
  async enter(t, user, options) {
    const page = await this.page(await this.context(t, options));
    await page.goto(`${this.facts.pocketbase}/?user=${user}`);
    await inChat(page);
    return page;
  }

  /** Alice and Bob in separate profiles, for the tests of a file. */
  async pair() {
    [this.alice, this.bob] = await Promise.all([this.enter(null, "alice"), this.enter(null, "bob")]);
    for (const page of [this.alice, this.bob]) await openRoom(page, "Demo");
    return this;
  }

  async page(context) {
    const page = await context.newPage();
    page.problems = [];
    page.on("pageerror", (error) => page.problems.push(String(error.stack ?? error)));
    return page;
  }

  /** Calls PocketBase's API, as the superuser unless a token is given. */
  async api(method, target, body, token = this.token) {
    const response = await fetch(`${this.facts.pocketbase}/api/collections/${target}`, {
      method,
      headers: { "content-type": "application/json", ...(token && { authorization: token }) },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${target}: ${response.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  user(name) {
    return this.facts.users.find((user) => user.name.toLowerCase() === name);
  }

  /**
   * A public room of Alice with `count` messages, "line 0" and so on, written straight into PocketBase's database: the
   * API would need a minute.
   */
  async longRoom(count) {
    const owner = this.user("alice").id;
    const { id: room } = await this.api("POST", "rooms/records", { name: "Archive", type: "public", owner });
    const script = [
      "import sqlite3, sys",
      "file, room, author, count = sys.argv[1:]",
      "db = sqlite3.connect(file, timeout=20)",
      "row = lambda i: ('line%011d' % i, room, author, 'line %d ' % i + 'and so on ' * (i % 12), '2026-01-%02d %02d:%02d:%02d.%03dZ' % (1 + i // 86400, i // 3600 % 24, i // 60 % 60, i % 60, 0))",
      "db.executemany(\"INSERT INTO messages (id, room, author, content, type, created, updated) VALUES (?1, ?2, ?3, ?4, 'text', ?5, ?5)\", map(row, range(int(count))))",
      "db.commit()",
    ].join("\n");
    const database = join(this.folder, "data/pb_data/data.db");
    execFileSync("python3", ["-c", script, database, room, owner, String(count)]);
    return room;
  }

  async membership(user, room = this.facts.room) {
    const filter = encodeURIComponent(`room="${room}" && user="${this.user(user).id}"`);
    const { items } = await this.api("GET", `room_members/records?filter=${filter}`);
    return items[0];
  }
}

/** Waits for the list of rooms and the connection. */
export async function inChat(page) {
  await page
    .getByRole("navigation", { name: /Chats|Чаты/ })
    .getByRole("listitem")
    .first()
    .waitFor();
  await connected(page);
}

export const connected = (page) => page.locator("[data-banner=hidden]").waitFor({ state: "attached" });
export const composer = (page) => page.locator("[data-composer]");
export const log = (page) => page.getByRole("log");
/** Messages with `text` in the message's own text, not in a quote. */
export const message = (page, text) =>
  log(page)
    .locator("article")
    .filter({ has: page.locator("[data-body]").filter({ hasText: text }) });

/** Opens a chat from the list. */
export async function openRoom(page, name) {
  const items = page.getByRole("navigation").getByRole("listitem").getByRole("button").filter({ hasText: name });
  await items.first().click();
  await page.locator("nav [aria-current]").filter({ hasText: name }).waitFor({ state: "attached" }); // hidden on a phone
  await composer(page).waitFor();
}

export async function say(page, text) {
  await composer(page).fill(text);
  await composer(page).press("Enter");
  await message(page, text).first().waitFor();
}

/** Waits until the message is shown as stored by the server. */
export const sent = (page, text) => message(page, text).and(page.locator("[data-state=sent]")).first().waitFor();

/** Opens the menu of a message and chooses an entry. */
export async function act(page, text, entry) {
  await message(page, text).last().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("menuitem", { name: entry }).click();
}

/** Faults of accessibility that axe-core calls serious or critical. */
export async function faults(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, {
      resultTypes: ["violations"],
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
    }),
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`,
    );
}

export const shot = (page, name) => page.screenshot({ path: join(shots, `${name}.png`), animations: "disabled" });
