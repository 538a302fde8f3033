// The chat as a newcomer meets it: errors that name the field, ways back, and texts in the language of the page.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ChatLab, composer, faults, openRoom, say, sent, until } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };
const lab = new ChatLab();
const check = (name, body) => test(name, lab.explained(body));
before(lab.explained(() => lab.open()));
after(() => lab.stop());

const inFront = (locator) =>
  locator.evaluate((element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return element.contains(document.elementFromPoint(left + width / 2, top + height / 2));
  });

check("a refused login or sign-up names the field, in the language of the page", async (t) => {
  const page = await lab.page(await lab.context(t, { ...PHONE, locale: "ru-RU" }));
  await page.goto(lab.facts.pocketbase);
  const [name, mail, password] = ["Имя", "Эл. почта", "Пароль"].map((label) =>
    page.getByRole("textbox", { name: new RegExp(`^${label}`) }),
  );
  const problem = (field) =>
    field.evaluate((input) =>
      (input.getAttribute("aria-describedby") ?? "")
        .split(" ")
        .map((id) => document.getElementById(id)?.textContent ?? "")
        .join(" "),
    );
  const focused = (field) => field.evaluate((input) => input === document.activeElement);

  await page.getByRole("button", { name: "Войти" }).click();
  await page.getByText("Введите адрес электронной почты.").waitFor();
  await page.getByText("Введите пароль.").waitFor();
  assert.match(await problem(mail), /Введите адрес/);
  assert.ok(await focused(mail));

  await page.getByText("Регистрация").click();
  const create = page.getByRole("button", { name: "Создать аккаунт" });
  await name.fill("Мария");
  await mail.fill("мария");
  await password.fill("коротко");
  await create.click();
  await page.getByText("Это не похоже на адрес почты.").waitFor();
  await page.getByText("В пароле должно быть не меньше 8 символов.").waitFor();
  assert.deepEqual(await faults(page), []);

  await password.fill("длинный-пароль");
  await mail.fill("alice@example.com");
  await create.click();
  await page.getByText("На эту почту уже есть аккаунт.").waitFor();
  assert.equal(await page.getByText("Это имя занято.").count(), 0);
  assert.ok(await focused(mail));
  await until(() => inFront(create), "the button to be in sight");

  await name.fill("Alice");
  await mail.fill("maria@example.com");
  await create.click();
  await page.getByText("Это имя занято.").waitFor();
  assert.equal(await page.getByText("На эту почту уже есть аккаунт.").count(), 0);
  assert.ok(await focused(name));
});

check("where the operator has closed registration, the form says so", async (t) => {
  const { createRule } = await lab.api("GET", "users");
  await lab.api("PATCH", "users", { createRule: null });
  t.after(() => lab.api("PATCH", "users", { createRule }));
  for (const [locale, labels, told] of [
    ["ru-RU", ["Регистрация", "Имя", "Эл. почта", "Пароль", "Создать аккаунт"], /Регистрация закрыта: обратитесь к/],
    ["en-GB", ["Sign up", "Name", "Email", "Password", "Create account"], /Registration is closed; ask the admin/],
  ]) {
    const page = await lab.page(await lab.context(t, { ...PHONE, locale }));
    await page.goto(lab.facts.pocketbase);
    const [tab, ...rest] = labels;
    const create = rest.pop();
    await page.getByText(tab, { exact: true }).click();
    const values = ["Мария", "maria@example.org", "длинный-пароль"];
    for (const [index, label] of rest.entries())
      await page.getByRole("textbox", { name: new RegExp(`^${label}`) }).fill(values[index]);
    await page.getByRole("button", { name: create }).click();
    await page.getByRole("alert").filter({ hasText: told }).waitFor();
  }
});

check("on a phone, a room that the user has lost leads back to the chats", async (t) => {
  const page = await lab.page(await lab.context(t, PHONE));
  await page.goto(`${lab.facts.pocketbase}/?user=bob#/room/gone00000000000`);
  await page.getByText("You are not in this room anymore").waitFor();
  await page.getByRole("button", { name: "Back to chats" }).click();
  await page.getByRole("navigation", { name: "Chats" }).waitFor();
});

check("a notice covers neither the chosen files nor the composer; sizes have Russian units", async (t) => {
  const page = await lab.enter(t, "alice", { ...PHONE, locale: "ru-RU" });
  await openRoom(page, "Demo");
  const files = page.locator("input[type=file]");
  const file = (bytes) => [{ name: "письмо.txt", mimeType: "text/plain", buffer: Buffer.alloc(bytes, "a") }];
  await files.setInputFiles(file(22));
  await files.setInputFiles(file((25 << 20) + 1));
  const notice = await page.locator(".mantine-Notification-root").filter({ hasText: "больше 25 МБ" }).boundingBox();
  for (const part of [page.getByRole("group", { name: "1 файл" }), composer(page)]) {
    const { y, height } = await part.boundingBox();
    assert.ok(
      notice.y + notice.height <= y || notice.y >= y + height,
      `${JSON.stringify(notice)} over ${y}, ${height}`,
    );
  }
  await composer(page).fill("вложение");
  await page.getByRole("button", { name: "Отправить" }).click();
  await page.getByText("22 байта").waitFor();
});

check("before leaving a room, its members learn whether they can come back", async (t) => {
  const page = await lab.enter(t, "alice");
  const leaving = async (room, hint) => {
    await openRoom(page, room);
    await page.getByRole("button", { name: "Room details" }).click();
    await page.getByRole("button", { name: "Leave room" }).click();
    const dialog = page.getByRole("dialog", { name: new RegExp(`Leave the room .${room}`) });
    await dialog.getByText(hint).waitFor();
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("complementary").getByRole("button", { name: "Close" }).click();
  };
  await leaving("General", "you can join it again at any time");
  await leaving("Demo", "only when you are invited again");
});

check("the achievements that are earned, ahead and secret add up", async (t) => {
  const page = await lab.enter(t, "bob");
  await page.getByRole("button", { name: /^Menu/ }).click();
  await page.getByRole("menuitem", { name: "Settings" }).click();
  const own = page.getByRole("region", { name: "Achievements" });
  const [, unlocked, all] = /(\d+) of (\d+)/.exec(await own.getByText(/\d+ of \d+/).innerText());
  const [, ahead] = /(\d+) more/.exec(await own.getByText(/\d+ more to earn/).innerText());
  assert.equal(Number(unlocked) + Number(ahead), Number(all));
  await own.getByText(/\d+ more to earn/).click();
  await own.getByText("0/10,000").waitFor();
});

check("achievements earned just now are told in their section, where they cover nothing", async (t) => {
  const { id } = lab.user("alice");
  const page = await lab.enter(t, "alice", { ...PHONE, locale: "ru-RU" });
  const { items } = await lab.api("GET", `achievements/records?filter=${encodeURIComponent(`user="${id}"`)}`);
  for (const one of items) await lab.api("DELETE", `achievements/records/${one.id}`);
  await page.getByRole("button", { name: /^Меню/ }).click();
  await page.getByRole("menuitem", { name: "Настройки" }).click();
  await page
    .getByRole("region", { name: "Достижения" })
    .getByText(/Только что получено: \S/)
    .waitFor();
  assert.equal(await page.locator(".mantine-Notification-root").count(), 0);

  await page.getByRole("button", { name: "Сохранить" }).click();
  const notice = page.locator(".mantine-Notification-root");
  await notice.waitFor();
  assert.ok(await inFront(page.getByRole("heading", { name: "Настройки" })));
  assert.ok(await inFront(page.getByRole("heading", { name: "Профиль" })));
  await notice.tap();
  await notice.waitFor({ state: "detached", timeout: 2_000 });
});

check("a search result of one's own has one's own picture", async (t) => {
  const page = await lab.enter(t, "alice", { locale: "ru-RU" });
  await openRoom(page, "General");
  await say(page, "иголка в стоге сена");
  await sent(page, "иголка в стоге");
  await page.getByRole("button", { name: "Поиск по сообщениям" }).click();
  await page.getByRole("textbox", { name: "Поиск по сообщениям" }).fill("иголка");
  const found = page.getByRole("dialog").getByRole("listitem").filter({ hasText: "Вы" }).first();
  await found.waitFor();
  assert.equal(await found.locator("[data-initials]").getAttribute("data-initials"), "A");
});

check("friend requests are a number at the own picture, not a red dot as for do-not-disturb", async (t) => {
  const [alice, bob] = await Promise.all([lab.enter(t, "alice"), lab.enter(t, "bob")]);
  await bob.getByRole("button", { name: /^Menu/ }).click();
  await bob.getByRole("menuitem", { name: "Friends" }).click();
  await bob.getByRole("textbox", { name: "Find people" }).fill("Alice");
  await bob.getByRole("button", { name: "Add Alice to friends" }).click();
  const menu = alice.getByRole("button", { name: /^Menu: Alice, online, 1 friend request$/ });
  await menu.waitFor();
  assert.equal(await menu.innerText(), "1");
});
