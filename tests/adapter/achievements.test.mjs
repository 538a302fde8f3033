// The catalogue of achievements on real PocketBase: the server counts from records, grants what is earned, and refuses the
// rest. Messages with times of the past come in as an import brings them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { refused } from "./contract.mjs";
import { PASSWORD, Stage } from "./stage.mjs";

/** Ids of the old frontend. */
const KNOWN = `first_message voice_master reaction_brain soul_of_party magnet popular_person rescuer silent_listener
  initiator chatterbox night_owl speed_shooter quote_king history_keeper photographer reactor documentalist collector
  self_director oops_all paradox chips_pretzel ninja nostalgia beacon perfect_taste striker new_year_miracle`.split(
  /\s+/,
);

let stage;
let number = 0;
before(async () => {
  stage = await Stage.start();
});
after(() => stage?.stop());

const newId = (prefix) => `${prefix}${String((number += 1)).padStart(15 - prefix.length, "0")}`;

/** Writes rows with their times, as konvert-migrate does. */
async function write(kind, rows) {
  const { status, body } = await stage.pocketbase.call(
    "POST",
    `/api/konvert/import/rows/${kind}`,
    rows.map((row) => ({ updated: row.created, ...row })),
    stage.pocketbase.root,
  );
  assert.deepEqual([status, body.created, body.rejected], [200, rows.length, []], JSON.stringify(body));
}

const stamp = (time) => new Date(time).toISOString().replace("T", " ");
const said = (author, room, times, more = () => ({})) =>
  times.map((time, index) => ({
    ...{ id: newId("m"), room, author, content: `message ${index}`, type: "text", mentions: [] },
    ...{ created: stamp(time), edited_at: "", reply_to: "", forwarded_from: "", forwarded: false, deleted: false },
    ...more(index),
  }));
const every = (count, step, start = Date.UTC(2025, 5, 1, 12)) =>
  Array.from({ length: count }, (_, i) => start + i * step);
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
/** The local time of this machine as UTC milliseconds; the adapter sends the zone. */
const local = (...parts) => new Date(...parts).getTime();

async function pair() {
  const [one, two] = [await stage.user("one"), await stage.user("two")];
  const { room } = await one.adapter.createRoom("Hall", "private", [two.id]);
  return { one, two, room };
}

/** Asserts the progress and that exactly a complete one is granted. */
async function grants(user, id, progress) {
  const entry = async () => (await user.adapter.getAchievements()).achievements.find((each) => each.id === id);
  const { progress: found, max_progress } = await entry();
  assert.equal(found, progress ?? max_progress, id);
  if (found < max_progress) return assert.rejects(user.adapter.unlockAchievement(id), refused("forbidden"), id);
  await user.adapter.unlockAchievement(id);
  assert.ok((await entry()).unlocked_at, id);
}

test("all achievements of the old frontend are known, in both languages; secret ones are marked", async () => {
  const { adapter, id, email } = await stage.user("reader");
  const { achievements } = await adapter.getAchievements();
  const ids = achievements.map((entry) => entry.id);
  assert.deepEqual(
    KNOWN.filter((known) => !ids.includes(known)),
    [],
  );
  assert.equal(new Set(ids).size, ids.length, "each once");
  const russian = stage.adapter({ language: "ru" });
  await russian.signin(email, PASSWORD);
  const { achievements: translated } = await russian.getAchievements({ userId: id });
  for (const [index, { name, description, max_progress }] of achievements.entries()) {
    assert.ok(name && description && max_progress >= 1);
    assert.match(translated[index].name + translated[index].description, /[а-яё]/i);
  }
  assert.ok(achievements.find((entry) => entry.id === "ninja").secret);
  assert.deepEqual(
    achievements.filter(({ unavailable }) => unavailable).map((entry) => entry.id),
    ["perfect_taste"],
  );
  assert.equal(achievements.find((entry) => entry.id === "first_message").secret, undefined);
});

test("achievements by the number of messages of a kind", async () => {
  const { one, two, room } = await pair();
  const { room: other } = await one.adapter.createRoom("Other", "private");
  await write("messages", [
    ...said(one.id, room.id, every(249, MINUTE), () => ({ type: "voice" })),
    ...said(one.id, room.id, every(500, MINUTE), () => ({ type: "image" })),
    ...said(one.id, room.id, every(199, MINUTE), () => ({ type: "file" })),
    ...said(one.id, room.id, every(30, MINUTE), () => ({ type: "video" })),
    ...said(one.id, other.id, every(49, MINUTE), () => ({ type: "video" })),
  ]);
  await grants(one, "voice_master", 249);
  await grants(one, "photographer");
  await grants(one, "illustrator");
  await grants(one, "documentalist", 199);
  await grants(one, "self_director", 49); // in one room
  await grants(one, "talkative");
  await grants(one, "chatterbox", 1027);
  await grants(two, "first_message", 0);
});

test("achievements by replies, reactions, mentions, pins and favourites", async () => {
  const { one, two, room } = await pair();
  const sources = said(two.id, room.id, every(300, MINUTE));
  await write("messages", sources);
  const replies = said(one.id, room.id, every(301, MINUTE), (i) => ({ reply_to: sources[Math.min(i, 299)].id }));
  await write("messages", replies);
  await grants(one, "quote_king"); // 301 replies to 300 messages
  await grants(one, "attentive");
  await grants(one, "nostalgia", 0); // all of the same day

  const years = said(two.id, room.id, [Date.now() - 400 * DAY]);
  await write("messages", years);
  await one.adapter.addReaction(years[0].id, "👍");
  await grants(one, "nostalgia");

  const emoji = ["👍", "❤️", "😂", "😮", "😢", "🙏", "🔥", "🎉", "👀", "💯"];
  const reactions = (user, count) =>
    Array.from({ length: count }, (_, i) => ({
      ...{ id: newId("r"), message: replies[Math.floor(i / 10)].id, user, emoji: emoji[i % 10] },
      created: stamp(Date.now()),
    }));
  await write("reactions", reactions(two.id, 20));
  await grants(one, "popular_person", 10); // ten reactions to each of two messages
  await grants(two, "reaction_brain");
  await grants(two, "reactor", 20);
  const third = await stage.user("third");
  await write("reactions", reactions(third.id, 10));
  await grants(one, "popular_person");

  const mentioned = await Promise.all(["a", "b", "c"].map((name) => stage.user(name)));
  const five = [two.id, third.id, ...mentioned.map(({ id }) => id)];
  await one.adapter.sendMessage(room.id, "you four", "text", undefined, { mentions: five.slice(1) });
  await grants(one, "beacon", 0);
  await one.adapter.sendMessage(room.id, "you five", "text", undefined, { mentions: five });
  await grants(one, "beacon");

  for (const { id } of sources.slice(0, 2)) await one.adapter.pinMessage(room.id, id);
  await grants(one, "history_keeper", 2);
  const { room: favorites } = await one.adapter.getOrCreateFavorites();
  await write("messages", said(one.id, favorites.id, every(100, MINUTE)));
  await grants(one, "collector");
});

test("achievements by the time of messages, in the user's time zone", async () => {
  const { one, two, room } = await pair();
  await write("messages", said(one.id, room.id, [local(2025, 3, 4, 1, 59), local(2025, 3, 4, 5, 0)]));
  await grants(one, "night_owl", 0);
  await write("messages", said(one.id, room.id, [local(2025, 3, 5, 4, 59)]));
  await grants(one, "night_owl");

  await write("messages", said(one.id, room.id, [local(2026, 0, 1, 0, 2)]));
  await grants(one, "new_year_miracle", 0);
  await write("messages", said(one.id, room.id, [local(2026, 0, 1, 0, 1)]));
  await grants(one, "new_year_miracle");

  await write("messages", said(one.id, room.id, [...every(10, 1_700)]));
  await grants(one, "speed_shooter", 0); // 15.3 s
  await write("messages", said(one.id, room.id, [...every(10, 1_600, Date.UTC(2025, 6, 1))]));
  await grants(one, "speed_shooter");

  await write("messages", said(two.id, room.id, [...every(29, DAY), ...every(20, DAY, Date.UTC(2025, 8, 1, 12))]));
  await grants(two, "striker", 29);
  await write("messages", said(two.id, room.id, [Date.UTC(2025, 5, 30, 12)]));
  await grants(two, "striker");

  const soon = (time) => said(two.id, room.id, [time], () => ({ content: "Ушёл в магазин, скоро буду" }));
  await write("messages", soon(Date.now() - 170 * MINUTE));
  await grants(two, "paradox", 0);
  await write("messages", soon(Date.now() - 500 * MINUTE));
  await grants(two, "paradox"); // the next message came five hours later
});

test("achievements by rooms, friends and reading", async () => {
  const { one, two, room } = await pair();
  await grants(one, "soul_of_party");
  for (let i = 0; i < 9; i += 1) await one.adapter.createRoom(`Room ${i}`, "private");
  await grants(one, "initiator");
  await write("messages", said(one.id, room.id, every(1_000, 1, Date.now())));
  await grants(two, "silent_listener", 0);
  await two.adapter.markAsRead(room.id);
  await grants(two, "silent_listener");
  const friends = Array.from({ length: 50 }, () => newId("user"));
  for (const id of friends) {
    await stage.pocketbase.create("users", {
      ...{
        id,
        email: `${id}@example.com`,
        username: id,
        password: "a-long-password",
        passwordConfirm: "a-long-password",
      },
    });
    await stage.pocketbase.create("friend_requests", { from: id, to: two.id, status: "accepted" });
  }
  await grants(two, "good_company");
  await grants(two, "chips_pretzel");
});

test("invitations count though their notifications are gone; a call for somebody is answered", async () => {
  const { one, two, room } = await pair();
  const guests = await Promise.all(Array.from({ length: 9 }, () => stage.user("guest")));
  for (const { id } of guests.slice(0, 8)) await one.adapter.inviteToRoom(room.id, id);
  for (const { adapter } of [two, guests[0]]) {
    for (const { id } of (await adapter.getNotifications()).notifications) await adapter.deleteNotification(id);
  }
  await grants(one, "magnet", 9);
  await grants(one, "rescuer", 0);
  await two.adapter.sendMessage(room.id, "Кто-нибудь, добавьте Сашу!");
  await one.adapter.inviteToRoom(room.id, guests[8].id);
  await grants(one, "magnet");
  await grants(one, "rescuer");
});

test("deleting at once, and deleting before anybody has read", async () => {
  const { one, two, room } = await pair();
  const { message: quick } = await one.adapter.sendMessage(room.id, "oops");
  await two.adapter.markAsRead(room.id);
  await one.adapter.deleteMessage(quick.id);
  await grants(one, "oops_all");
  await grants(one, "ninja", 0);
  const old = said(one.id, room.id, [Date.now() + 60_000]);
  await write("messages", old);
  await one.adapter.deleteMessage(old[0].id);
  await grants(one, "ninja");
  await grants(two, "oops_all", 0);
});

test("a time zone outside of the world is refused", async () => {
  const { id, adapter } = await stage.user("traveller");
  const token = adapter.pocketbase.authStore.token;
  for (const zone of ["9000", "x", "1.5"]) {
    const target = `/api/konvert/users/${id}/achievements?zone=${zone}`;
    const { status, body } = await stage.pocketbase.call("GET", target, undefined, { token });
    assert.deepEqual([status, body.code], [400, "invalid"], zone);
  }
});
