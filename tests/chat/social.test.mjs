// Notifications, polls, blocked users, achievements, and files that wait: the parts of the chat around the messages.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { ChatLab, act, composer, connected, inChat, log, message, openRoom, say, sent, until } from "./harness.mjs";

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

const bell = (page) => page.getByRole("button", { name: /^Notifications/ });
const notes = (page) => page.getByRole("region", { name: "Notifications" }).getByRole("listitem");
const attach = async (page, name, text) => {
  const file = { name, mimeType: "text/plain", buffer: Buffer.from(text) };
  await page.locator("input[type=file]").setInputFiles(file);
};

/** A further user with a page. */
async function newcomer(t, name) {
  const page = await lab.page(await lab.context(t));
  await page.goto(lab.facts.pocketbase);
  await page.getByText("Sign up", { exact: true }).click();
  await page.getByRole("textbox", { name: /^Name/ }).fill(name);
  await page.getByRole("textbox", { name: "Email" }).fill(`${name.toLowerCase()}@example.com`);
  await page.getByRole("textbox", { name: /^Password/ }).fill("a-long-password");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByText("No chats yet").waitFor();
  return page;
}

check(
  "notifications: a mention, an invitation and a friend request arrive, lead there, and are answered",
  async (t) => {
    await bell(bob).click();
    await bob.getByText("No notifications").waitFor();

    await say(alice, "are you there, @Bob?");
    await notes(bob).filter({ hasText: "Alice mentioned you" }).waitFor();
    await bob.getByRole("button", { name: "Notifications, 1 unread" }).waitFor();

    const carol = await newcomer(t, "Carol");
    await carol.getByRole("button", { name: "New chat" }).first().click();
    await carol.getByRole("tab", { name: "Room" }).click();
    await carol.getByRole("textbox", { name: "Room name" }).fill("Attic");
    await carol.getByRole("textbox", { name: "Invite people" }).fill("Bob");
    await carol.getByRole("checkbox", { name: /Bob/ }).check();
    await carol.getByRole("button", { name: "Create room" }).click();
    await carol.getByRole("heading", { name: "Attic" }).waitFor();
    await notes(bob).filter({ hasText: "Carol added you to “Attic”" }).waitFor();

    await carol.getByRole("button", { name: /^Menu/ }).click();
    await carol.getByRole("menuitem", { name: "Friends" }).click();
    await carol.getByRole("textbox", { name: "Find people" }).fill("Bob");
    await carol.getByRole("button", { name: "Add Bob to friends" }).click();
    const request = notes(bob).filter({ hasText: "Carol wants to be your friend" });
    await request.getByRole("button", { name: "Accept: Carol" }).click();
    await request.waitFor({ state: "detached" });
    await bell(carol).click();
    await notes(carol).filter({ hasText: "Bob is your friend now" }).waitFor();

    await notes(bob)
      .filter({ hasText: "Attic" })
      .getByRole("button", { name: /Carol added/ })
      .click();
    await bob.getByRole("heading", { name: "Attic" }).waitFor();
    await bell(bob).click();
    await bob.getByRole("button", { name: "Mark all as read" }).click();
    await bob.getByRole("button", { name: "Notifications", exact: true }).waitFor();
    await bob.reload(); // the server knows
    await bob.getByRole("button", { name: "Notifications", exact: true }).waitFor();
    await notes(bob)
      .filter({ hasText: "Attic" })
      .getByRole("button", { name: /Remove/ })
      .click();
    await notes(bob).filter({ hasText: "Attic" }).waitFor({ state: "detached" });
    await openRoom(bob, "Demo");
    assert.deepEqual([...alice.problems, ...bob.problems, ...carol.problems], []);
  },
);

check("a poll: made by one user, votes of both on both screens, changed and withdrawn", async () => {
  await alice.getByRole("button", { name: "Attach a file or a poll" }).click();
  await alice.getByRole("menuitem", { name: "Poll" }).click();
  const dialog = alice.getByRole("dialog", { name: "New poll" });
  await dialog.getByText("are not encrypted").waitFor();
  assert.ok(await dialog.getByRole("button", { name: "Create poll" }).isDisabled());
  await dialog.getByRole("textbox", { name: "Question" }).fill("Where do we meet?");
  await dialog.getByRole("textbox", { name: "Answer 1" }).fill("Harbour");
  await dialog.getByRole("textbox", { name: "Answer 2" }).fill("Station");
  await dialog.getByRole("button", { name: "Add an answer" }).click();
  await dialog.getByRole("textbox", { name: "Answer 3" }).fill("Market");
  await dialog.getByRole("button", { name: "Create poll" }).click();

  const poll = (page) => page.getByRole("group", { name: "Poll: Where do we meet?" });
  const option = (page, name) => poll(page).getByRole("button", { name });
  await option(bob, /^Harbour/).click();
  await option(alice, /^Harbour.*100 %.*\b1 vote$/).waitFor();
  await option(alice, /^Station/).click();
  await option(bob, /^Station.*50 %.*\b1 vote$/).waitFor();
  await option(bob, /^Station/).click();
  await option(alice, /^Station.*100 %.*\b2 votes$/).waitFor();
  await option(bob, /^Station/)
    .and(bob.locator("[aria-pressed=true]"))
    .click();
  await option(alice, /^Station.*100 %.*\b1 vote$/).waitFor();
  await poll(bob).getByText("1 vote", { exact: true }).last().waitFor();
  await bob.reload();
  await option(bob, /^Station.*100 %.*\b1 vote$/).waitFor();
  assert.deepEqual([...alice.problems, ...bob.problems], []);
});

check("messages of a blocked user are hidden until shown, also in the list and in the search", async (t) => {
  const mallory = await newcomer(t, "Mallory");
  await openPublic(mallory, "General");
  await openPublic(bob, "General");
  for (const text of ["buy my pills", "really cheap pills"]) await say(mallory, text);
  await message(bob, "really cheap pills").waitFor();
  await bob
    .locator("article")
    .filter({ hasText: "buy my pills" })
    .getByRole("button", { name: "Mallory" })
    .first()
    .click();
  await bob.getByRole("dialog", { name: "Profile" }).getByRole("button", { name: "Block" }).click();
  await bob.keyboard.press("Escape");
  await bob.getByText("2 messages from people you have blocked").waitFor();
  assert.equal(await message(bob, "pills").count(), 0);
  await say(mallory, "more pills");
  await bob.getByText("3 messages from people you have blocked").waitFor();
  await bob.getByRole("navigation").getByText("Message from somebody you have blocked").waitFor();
  await bob.getByRole("button", { name: "Search in messages" }).click();
  await bob.getByRole("textbox", { name: "Search messages" }).fill("pills");
  await bob.getByText("No messages found").waitFor();
  await bob.keyboard.press("Escape");
  await bob.getByRole("button", { name: "Show", exact: true }).click();
  await message(bob, "more pills").waitFor();
  await openRoom(bob, "Demo");
});

/** Opens a public room, after joining it if needed. */
async function openPublic(page, name) {
  await page.getByRole("textbox", { name: "Search chats and people" }).fill(name);
  const item = page.getByRole("navigation").getByRole("button").filter({ hasText: name }).first();
  await item.click();
  await page.getByRole("heading", { name, level: 1 }).waitFor();
  await page.getByRole("textbox", { name: "Search chats and people" }).fill("");
  const join = page.getByRole("button", { name: "Join room" });
  await composer(page).or(join).first().waitFor();
  if (await join.isVisible()) await join.click();
  await composer(page).waitFor();
}

/** Waits until the browser has stored a file, which takes a moment longer than showing its name. */
const stored = (page, store) =>
  until(() =>
    page.evaluate(
      (name) =>
        new Promise((fulfil) => {
          const request = indexedDB.open("konvert-files");
          request.onsuccess = () => {
            const count = request.result.transaction(name).objectStore(name).count();
            count.onsuccess = () => {
              request.result.close();
              fulfil(count.result > 0);
            };
          };
        }),
      store,
    ),
  );

check("files that were chosen, and a message with files that waits, survive a reload", async (t) => {
  const context = await lab.context(t);
  const page = await lab.page(context);
  await page.goto(lab.facts.pocketbase);
  await page.getByRole("button", { name: "Alice" }).click();
  await inChat(page);
  await openRoom(page, "Demo");
  await attach(page, "chosen.txt", "chosen, not sent");
  await page.getByText("chosen.txt").waitFor();
  await stored(page, "chosen");
  await page.reload();
  await page.getByText("chosen.txt").waitFor();
  await page.getByRole("button", { name: "Remove chosen.txt" }).click();

  // The network is away for PocketBase's API only, so that the page itself can be loaded again.
  const cut = (route) => route.abort();
  await context.route("**/api/collections/messages/records?**", (route) =>
    route.request().method() === "POST" ? cut(route) : route.fallback(),
  );
  await attach(page, "waiting.txt", "the content that waited");
  await composer(page).fill("with a file");
  await composer(page).press("Enter");
  await message(page, "with a file").and(page.locator("[data-state=pending]")).waitFor();
  await stored(page, "waiting");
  await page.reload();
  await message(page, "with a file").and(page.locator("[data-state=pending]")).waitFor();
  await context.unroute("**/api/collections/messages/records?**");
  await page.reload();
  await sent(page, "with a file");
  const { items } = await lab.api("GET", "messages/records?sort=-created&perPage=1");
  assert.match(items[0].content, /^\{"version":"v1","ciphertext"/, "encrypted, though the room was not loaded yet");
  const [download] = await Promise.all([
    bob.waitForEvent("download"),
    message(bob, "with a file")
      .getByRole("button", { name: /Download waiting.txt/ })
      .click(),
  ]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  assert.equal(Buffer.concat(chunks).toString(), "the content that waited");
  assert.equal(await message(bob, "with a file").count(), 1, "once");
  await page.reload();
  await sent(page, "with a file");
  assert.equal(await message(page, "with a file").count(), 1, "nothing waits any more");
});

check("achievements: earned ones in the settings and the profile, the way to the others for oneself", async () => {
  await alice.getByRole("button", { name: /^Menu/ }).click();
  await alice.getByRole("menuitem", { name: "Settings" }).click();
  const own = alice.getByRole("region", { name: "Achievements" });
  await own.getByRole("button", { name: "First words" }).waitFor();
  await own.getByText(/\d+ more to earn/).click();
  await own.getByText("Have 50 friends.").waitFor();
  await openRoom(alice, "Demo");
  await bob.getByRole("button", { name: "Room details" }).click();
  await bob.getByRole("complementary").getByRole("button", { name: /Alice/ }).first().click();
  const shown = bob.getByRole("dialog", { name: "Profile" }).getByRole("region", { name: "Achievements" });
  await shown.getByRole("button", { name: "First words" }).waitFor();
  assert.equal(await shown.getByText("more to earn").count(), 0);
  await bob.keyboard.press("Escape");
  await bob.getByRole("complementary").getByRole("button", { name: "Close" }).click();
});

check("favourites have a name in the language of the page", async (t) => {
  const { token } = await lab.api("POST", "users/auth-with-password", {
    identity: lab.user("alice").email,
    password: lab.user("alice").password,
  });
  const reply = await fetch(`${lab.facts.pocketbase}/api/konvert/favorites`, {
    method: "POST",
    headers: { authorization: token },
  });
  assert.equal(reply.status, 200);
  for (const [locale, name] of [
    ["en-GB", "Favourites"],
    ["ru-RU", "Избранное"],
  ]) {
    const page = await lab.enter(t, "alice", { locale });
    await page.getByRole("navigation").getByRole("button").filter({ hasText: name }).first().click();
    await page.getByRole("heading", { name }).waitFor();
  }
});

check("the panel names the transport", async (t) => {
  const page = await lab.page(await lab.context(t));
  await page.goto(`${lab.facts.pocketbase}/?user=alice&transport=pocketbase`);
  await inChat(page);
  for (const [one, name] of [
    [alice, "WebSocket"],
    [page, "PocketBase SSE"],
  ]) {
    await one.getByRole("button", { name: /^Menu/ }).click();
    await one.getByRole("menuitem", { name: "Connection details" }).click();
    await one.getByText("Transport").locator("xpath=following-sibling::dd").getByText(name).waitFor();
  }
  await alice.getByRole("complementary", { name: "Connection" }).getByRole("button", { name: "Close" }).click();
});

check("scripts and style sheets are compressed, and kept by the browser for a year", async () => {
  const html = await (await fetch(lab.facts.pocketbase)).text();
  const [path] = /assets\/index-[\w-]+\.js/.exec(html);
  const load = (encoding) => fetch(`${lab.facts.pocketbase}/${path}`, { headers: { "accept-encoding": encoding } });
  const [packed, plain] = await Promise.all([load("gzip, br"), load("identity")]);
  assert.equal(packed.headers.get("content-encoding"), "gzip");
  assert.equal(plain.headers.get("content-encoding"), null);
  for (const reply of [packed, plain]) {
    assert.match(reply.headers.get("content-type"), /^text\/javascript/);
    assert.match(reply.headers.get("cache-control"), /immutable/);
  }
  const script = await plain.text();
  assert.equal(await packed.text(), script); // fetch has unpacked the first
  const packedFile = await fetch(`${lab.facts.pocketbase}/${path}.gz`);
  assert.equal(gunzipSync(Buffer.from(await packedFile.arrayBuffer())).toString(), script);
  for (const bad of ["nothing.js", "..%2fconfig.json", ".hidden"]) {
    assert.equal((await fetch(`${lab.facts.pocketbase}/assets/${bad}`)).status, 404, bad);
  }
});

check(
  "somebody who knows nothing finds send, react, reply, invite and who is online by visible or spoken names",
  async () => {
    await connected(alice);
    await say(alice, "where are the buttons?");
    await sent(alice, "where are the buttons?");
    const send = alice.getByRole("button", { name: "Send", exact: true });
    assert.equal(await send.getAttribute("title"), "Send (Enter)");
    const last = message(alice, "where are the buttons?").last();
    await last.hover();
    const bar = last.getByRole("toolbar");
    await bar.getByRole("button", { name: "Add a reaction: 👍" }).waitFor();
    assert.equal(await bar.getByRole("button", { name: "Reply" }).getAttribute("title"), "Reply");
    await alice.getByText(/2 members, 2 online/).waitFor();
    await alice.getByRole("button", { name: "Room details" }).click();
    const details = alice.getByRole("complementary", { name: "Room details" });
    await details.getByText(/^Online · 2$/).waitFor();
    await details.getByRole("button", { name: "Invite" }).waitFor();
    await details.getByRole("button", { name: "Close" }).click();
    assert.ok((await log(alice).count()) === 1);
    await act(alice, "where are the buttons?", "Delete");
    await alice.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await until(async () => (await message(alice, "where are the buttons?").count()) === 0, "the delete");
  },
);
