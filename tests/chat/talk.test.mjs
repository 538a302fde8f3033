// Two users talk: messages, replies, edits, reactions, pins, typing, search, files, encryption.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ChatLab, act, composer, inChat, log, message, openRoom, say, sent, until } from "./harness.mjs";

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

check("a message appears at once for the other user, as text and not as HTML", async () => {
  await say(alice, "<b>hello</b> from Alice");
  await message(bob, "<b>hello</b> from Alice").waitFor();
  assert.equal(await bob.locator("article b").count(), 0);
  await sent(alice, "<b>hello</b> from Alice");
  assert.deepEqual([...alice.problems, ...bob.problems], []);
});

check("typing, reply, edit, reaction, pin and delete reach the other user", async () => {
  await composer(bob).pressSequentially("Lunch at", { delay: 30 });
  await alice.getByText("Bob is typing").first().waitFor();
  await say(bob, "Lunch at noon?");
  await message(alice, "Lunch at noon?").waitFor();

  await act(alice, "Lunch at noon?", "Reply");
  await say(alice, "Gladly");
  await message(bob, "Gladly").getByText("Lunch at noon?").waitFor();

  await act(bob, "Lunch at noon?", "Edit");
  await until(async () => (await composer(bob).inputValue()) === "Lunch at noon?", "the text to be edited");
  await say(bob, "Lunch at one?");
  await message(alice, "Lunch at one?").getByText("edited").first().waitFor();

  await message(alice, "Lunch at one?").last().hover();
  await alice.getByRole("button", { name: "Add a reaction: 👍" }).click();
  await bob.getByRole("button", { name: /👍 1: Alice/ }).waitFor();

  await act(alice, "Gladly", "Pin");
  await bob.getByRole("button", { name: /Pinned message.*Gladly/ }).waitFor();

  await say(alice, "a mistake");
  await message(bob, "a mistake").waitFor();
  await act(alice, "a mistake", "Delete");
  await alice.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await message(bob, "a mistake").waitFor({ state: "detached" });
  assert.deepEqual([...alice.problems, ...bob.problems], []);
});

check("messages of a private room are ciphertext for the server, and readable after a reload", async () => {
  const secret = `secret ${Date.now()}`;
  await say(alice, secret);
  await message(bob, secret).waitFor();
  await sent(alice, secret);
  const { items } = await lab.api("GET", "messages/records?sort=-created&perPage=1");
  assert.match(items[0].content, /^\{"version":"v1","ciphertext"/);
  assert.ok(!items[0].content.includes(secret));
  await bob.reload();
  await message(bob, secret).waitFor();
});

check("an image and a file go encrypted, and come back as they were", async () => {
  const picture = Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
    "base64",
  );
  await alice.locator("input[type=file]").setInputFiles({ name: "dot.png", mimeType: "image/png", buffer: picture });
  await composer(alice).press("Enter");
  const shown = bob.getByRole("button", { name: "Open the image dot.png" }).locator("img");
  await shown.waitFor();
  await until(() => shown.evaluate((image) => image.naturalWidth === 1), "the image to be drawn");

  const note = Buffer.from("these are the minutes");
  await alice.locator("input[type=file]").setInputFiles({ name: "minutes.txt", mimeType: "text/plain", buffer: note });
  await composer(alice).press("Enter");
  const [download] = await Promise.all([
    bob.waitForEvent("download"),
    bob.getByRole("button", { name: /Download minutes.txt/ }).click(),
  ]);
  const chunks = [];
  for await (const chunk of await download.createReadStream()) chunks.push(chunk);
  assert.deepEqual(Buffer.concat(chunks), note);
});

check("in an open room, a file keeps its Russian name and its size, also in the list and on the disk", async () => {
  const name = "отчёт за ноябрь.pdf";
  const files = [{ name, mimeType: "application/pdf", buffer: Buffer.alloc(2048, "a") }];
  await openRoom(alice, "General");
  await alice.locator("input[type=file]").setInputFiles(files);
  await composer(alice).press("Enter");
  const list = bob.getByRole("navigation", { name: "Chats" });
  await list.getByRole("listitem").filter({ hasText: "General" }).getByText(`Alice: ${name}`).waitFor();
  await openRoom(bob, "General");
  const file = log(bob).getByRole("button", { name: new RegExp(`Download ${name}`) });
  await file.getByText("2 kB").waitFor();
  const [download] = await Promise.all([bob.waitForEvent("download"), file.click()]);
  assert.equal(download.suggestedFilename(), name);
  await bob.reload();
  await file.getByText("2 kB").waitFor();
  await list.getByRole("listitem").filter({ hasText: "General" }).getByText(`Alice: ${name}`).waitFor();
});

check("a direct chat, a mention in a new room, an invitation and search", async () => {
  await alice.getByRole("button", { name: "New chat" }).first().click();
  await alice.getByRole("textbox", { name: "Find somebody by name" }).fill("Bob");
  await alice.getByRole("dialog").getByRole("button", { name: /Bob/ }).click();
  await alice.getByRole("heading", { name: "Bob" }).waitFor();
  await say(alice, "only for you");
  await openRoom(bob, "only for you");
  await message(bob, "only for you").waitFor();
  await alice.getByRole("button", { name: "About this chat" }).click();
  const about = alice.getByRole("complementary", { name: "About this chat" });
  await about.getByRole("button", { name: /Bob/ }).waitFor();
  assert.equal(await about.getByText(/Owner|2 members/).count(), 0);
  await about.getByRole("button", { name: "Close" }).click();
  // Cut off, the page does not know whether Bob is still there.
  const there = alice.getByRole("main").getByText("online", { exact: true });
  await there.waitFor();
  await alice.context().setOffline(true);
  await there.waitFor({ state: "detached" });
  assert.equal(await alice.locator("[data-status=online]").count(), 0);
  await alice.context().setOffline(false);
  await there.waitFor();

  await alice.getByRole("button", { name: "New chat" }).first().click();
  await alice.getByRole("tab", { name: "Room" }).click();
  await alice.getByRole("textbox", { name: "Room name" }).fill("Garden");
  await alice.getByText("Public", { exact: true }).click();
  await alice.getByRole("textbox", { name: "Invite people" }).fill("Bob");
  await alice.getByRole("checkbox", { name: /Bob/ }).check();
  await alice.getByRole("button", { name: "Create room" }).click();
  await alice.getByRole("heading", { name: "Garden" }).waitFor();
  await composer(alice).pressSequentially("who waters the tomatoes, @Bo");
  await alice.getByRole("option", { name: "Bob" }).waitFor();
  await composer(alice).press("Enter");
  await composer(alice).press("Enter");
  await sent(alice, "who waters the tomatoes, @Bob");

  const item = bob.getByRole("navigation").getByRole("button").filter({ hasText: "Garden" });
  await item.getByRole("img", { name: "You were mentioned" }).waitFor();
  await item.getByRole("img", { name: "1 unread message" }).waitFor();
  await openRoom(bob, "Garden");
  await item.getByRole("img", { name: "1 unread message" }).waitFor({ state: "detached" });

  await bob.getByRole("button", { name: "Search in messages" }).click();
  await bob.getByRole("textbox", { name: "Search messages" }).fill("tomatoes");
  await bob
    .getByRole("dialog")
    .getByRole("button", { name: /who waters the tomatoes/ })
    .click();
  await message(bob, "tomatoes").and(bob.locator("[data-highlighted]")).waitFor();
});

/** Another user with the page of their first device. */
const carol = {};

check("a new user signs up, finds how to begin and becomes a friend", async () => {
  const page = (carol.first = await lab.page(await lab.context(null)));
  await page.goto(lab.facts.pocketbase);
  await page.getByText("Sign up", { exact: true }).click();
  await page.getByRole("textbox", { name: /^Name/ }).fill("Carol");
  await page.getByRole("textbox", { name: "Email" }).fill("carol@example.com");
  await page.getByRole("textbox", { name: /^Password/ }).fill("carols-password");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByText("No chats yet").waitFor();
  await page.getByRole("heading", { name: "How to begin" }).waitFor();
  await page.getByRole("button", { name: /^Menu/ }).click();
  await page.getByRole("menuitem", { name: "Friends" }).click();
  await page.getByRole("textbox", { name: "Find people" }).fill("Bob");
  await page.getByRole("button", { name: "Add Bob to friends" }).click();
  await bob.getByRole("button", { name: /1 friend request/ }).click();
  await bob.getByRole("menuitem", { name: /Friends/ }).click();
  await bob.getByRole("button", { name: "Accept" }).click();
  await page.getByRole("button", { name: "Write a message: Bob" }).click();
  await page.getByRole("heading", { name: "Bob" }).waitFor();
  await say(page, "hello friend");
  await openRoom(bob, "Carol");
  await message(bob, "hello friend").waitFor();
});

check("a second device reads the encrypted messages after the recovery code, and not before", async (t) => {
  const login = async (page) => {
    await page.goto(lab.facts.pocketbase);
    await page.getByRole("textbox", { name: "Email" }).fill("carol@example.com");
    await page.getByRole("textbox", { name: /^Password/ }).fill("carols-password");
    await page.getByRole("button", { name: "Log in" }).click();
  };
  const { first } = carol;
  await first.getByRole("button", { name: /^Menu/ }).click();
  await first.getByRole("menuitem", { name: "Settings" }).click();
  await first.getByRole("button", { name: "Show recovery code" }).click();
  const code = await first.locator("code").innerText();
  assert.match(code, /^([0-9A-Z]{4}-){5}[0-9A-Z]{4}$/);

  const second = await lab.page(await lab.context(t));
  await login(second);
  await openRoom(second, "Bob");
  await log(second).getByText("Encrypted message. Waiting for the key").first().waitFor();
  await second.getByRole("button", { name: "Unlock" }).click();
  // The field for the code stands above everything else.
  assert.equal(await second.getByRole("heading", { level: 2 }).first().innerText(), "Unlock encrypted chats");
  await second.getByRole("textbox", { name: "Recovery code" }).fill("0000-0000-0000-0000-0000-0000");
  await second.getByRole("button", { name: "Unlock" }).click();
  await second.getByText("This code does not fit.").waitFor();
  await second.getByRole("textbox", { name: "Recovery code" }).fill(code.toLowerCase().replaceAll("-", " "));
  await second.getByRole("button", { name: "Unlock" }).click();
  await openRoom(second, "Bob");
  await message(second, "hello friend").waitFor();
  assert.deepEqual(second.problems, []);
});

check("a moderator mutes and bans; the user cannot write, and then cannot stay", async (t) => {
  const { id } = await lab
    .api("GET", `users/records?filter=${encodeURIComponent('email="carol@example.com"')}`)
    .then(({ items }) => items[0]);
  await lab.api("PATCH", `users/records/${lab.user("alice").id}`, { role: "moderator" });
  const moderator = await lab.enter(t, "alice");
  await openRoom(carol.first, "Bob");
  await moderator.getByRole("textbox", { name: "Search chats and people" }).fill("Carol");
  await moderator.getByRole("button", { name: /Carol/ }).click();
  await moderator.getByRole("heading", { name: "Carol" }).click();
  const choose = async (what, span) => {
    await moderator.getByRole("dialog").getByRole("button", { name: what }).click();
    await moderator.getByRole("menuitem", { name: span }).click();
  };
  await choose("Mute for", "1 hour");
  await moderator.getByText("Muted", { exact: true }).waitFor();
  await say(carol.first, "am I muted?");
  await message(carol.first, "am I muted?").getByText("You are muted").waitFor();
  await moderator.getByRole("button", { name: "Unmute" }).click();
  await message(carol.first, "am I muted?").getByRole("button", { name: "Send again" }).click();
  await sent(carol.first, "am I muted?");
  await choose("Ban for", "1 day");
  await carol.first.getByText("You were logged out").waitFor();
  assert.ok((await lab.api("GET", `users/records/${id}`)).banned_until);
});

check("one click logs a demo user in; the login stays after a reload and ends with the log-out", async (t) => {
  const page = await lab.page(await lab.context(t));
  await page.goto(lab.facts.pocketbase);
  await page.getByRole("button", { name: "Alice" }).click();
  await inChat(page);
  await page.reload();
  await inChat(page);
  await page.getByRole("button", { name: /^Menu: Alice/ }).click();
  await page.getByRole("menuitem", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Bob" }).click();
  await page.getByRole("button", { name: /^Menu: Bob/ }).waitFor();
});
