// The access rules of the Konvert schema, tried from the attacker's side as well.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { PASSWORD, PocketBase } from "./harness.mjs";

let pb;
const people = {}; // ann owns the rooms, mod moderates, bob is a member, eve a stranger, adm an admin of the site

const FUTURE = "2100-01-01 00:00:00.000Z";
const PAST = "2001-01-01 00:00:00.000Z";

/** Tries one call; returns whether it was allowed. */
async function tries(who, method, target, data) {
  const { status, body } = await pb.call(method, `/api/collections/${target}`, data, people[who]);
  assert.ok([200, 204, 400, 403, 404].includes(status), `${status} ${JSON.stringify(body)}`);
  // A refusal by a rule mentions no fields; another error would hide a broken test.
  if (status === 400) assert.deepEqual(body.data, {}, JSON.stringify(body));
  return status < 300;
}

const may = async (...call) => assert.ok(await tries(...call), `should be allowed: ${JSON.stringify(call)}`);
const mayNot = async (...call) => assert.ok(!(await tries(...call)), `should be refused: ${JSON.stringify(call)}`);

const id = (who) => people[who].id;
const text = (room, who) => ({ room: room.id, author: id(who), content: "x", type: "text" });

/** A room of Ann's with Mod as moderator and Bob as member; the memberships are stored by name. */
async function roomOf(type) {
  const room = await pb.create("rooms", { name: type, type, owner: id("ann") }, people.ann);
  const { items } = await pb.list("room_members", pb.root, `filter=(room='${room.id}')`);
  room.ann = items[0];
  room.mod = await pb.create("room_members", { room: room.id, user: id("mod"), role: "moderator" }, people.ann);
  if (type !== "direct") {
    room.bob = await pb.create("room_members", { room: room.id, user: id("bob"), role: "member" }, people.mod);
  }
  return room;
}

before(async () => {
  pb = await PocketBase.start();
  for (const name of ["ann", "mod", "bob", "eve", "adm"]) people[name] = await pb.user(name);
  await pb.update("users", id("adm"), { role: "admin" });
});

after(() => pb?.stop());

describe("users", () => {
  const signup = (name, more) => ({
    email: `${name}@example.com`,
    password: PASSWORD,
    passwordConfirm: PASSWORD,
    ...more,
  });

  test("a new user is an ordinary user, whatever the request says", async () => {
    await may(null, "POST", "users/records", signup("new1"));
    const { items } = await pb.list("users", pb.root, "filter=(email='new1@example.com')");
    assert.equal(items[0].role, "user");
    for (const [i, more] of [
      { role: "admin" },
      { role: "moderator" },
      { "role+": "admin" },
      { "+role": "admin" },
      { banned_until: PAST },
      { muted_until: PAST },
    ].entries()) {
      await mayNot(null, "POST", "users/records", signup(`bad${i}`, more));
    }
  });

  test("users cannot raise their own role or lift their own ban", async () => {
    const own = `users/records/${id("bob")}`;
    await may("bob", "PATCH", own, { status_text: "hello", public_key: "k", blocked: [id("eve")] });
    await may("bob", "PATCH", own, { role: "user", banned_until: "", muted_until: "" }); // unchanged
    for (const data of [
      { role: "admin" },
      { role: "" },
      { "role+": "admin" },
      { "role-": "user" },
      { banned_until: PAST },
      { muted_until: FUTURE },
    ]) {
      await mayNot("bob", "PATCH", own, data);
    }
    // With the modifier "+" on a single value, the old value stays.
    assert.equal((await pb.update("users", id("bob"), { "+role": "admin" }, people.bob)).role, "user");
    await mayNot("bob", "PATCH", `users/records/${id("eve")}`, { status_text: "by bob" });
    await mayNot("bob", "DELETE", `users/records/${id("eve")}`);
    await pb.update("users", id("bob"), { muted_until: FUTURE });
    await mayNot("bob", "PATCH", own, { muted_until: "" });
    await pb.update("users", id("bob"), { muted_until: "" });
  });

  test("an admin changes roles and bans, deletes accounts of others, and changes nothing else of an account", async () => {
    const eve = `users/records/${id("eve")}`;
    await may("adm", "PATCH", eve, { role: "moderator", muted_until: FUTURE });
    await may("adm", "PATCH", eve, { role: "user", muted_until: "" });
    const takeover = { password: "another-password", passwordConfirm: "another-password" };
    assert.equal((await pb.call("PATCH", `/api/collections/${eve}`, takeover, people.adm)).status, 400);
    for (const name of ["leaving", "adm2"]) people[name] = await pb.user(name);
    await pb.update("users", id("adm2"), { role: "admin" });
    await mayNot("mod", "DELETE", `users/records/${id("leaving")}`);
    await mayNot("adm", "DELETE", `users/records/${id("adm2")}`);
    await may("adm", "DELETE", `users/records/${id("leaving")}`);
  });

  test("signed-in users see every user, but only their own e-mail", async () => {
    const { items } = await pb.list("users", people.bob);
    assert.ok(items.length >= 5);
    assert.deepEqual(
      items.filter((user) => user.email).map((user) => user.id),
      [id("bob")],
    );
    assert.equal((await pb.list("users", null)).totalItems, 0);
    const guess = await pb.list("users", people.bob, `filter=${encodeURIComponent("email~'ann@'")}`);
    assert.equal(guess.totalItems, 0, "nor finds anyone by it");
  });

  test("a banned user is locked out at once, with the old token and for a new one", async () => {
    const room = await roomOf("public");
    await pb.update("users", id("bob"), { banned_until: FUTURE });
    await mayNot("bob", "GET", `rooms/records/${room.id}`);
    await mayNot("bob", "GET", `users/records/${id("ann")}`);
    await mayNot("bob", "POST", "messages/records", text(room, "bob"));
    await assert.rejects(pb.login("bob@example.com", PASSWORD));
    await pb.update("users", id("bob"), { banned_until: PAST });
    await may("bob", "POST", "messages/records", text(room, "bob"));
    await pb.login("bob@example.com", PASSWORD);
  });
});

describe("rooms", () => {
  test("public rooms are visible to signed-in users, other rooms to members", async () => {
    for (const [type, stranger] of [
      ["public", true],
      ["private", false],
      ["direct", false],
    ]) {
      const room = await roomOf(type);
      await may("ann", "GET", `rooms/records/${room.id}`);
      await may("mod", "GET", `rooms/records/${room.id}`);
      assert.equal(await tries("eve", "GET", `rooms/records/${room.id}`), stranger, type);
      await mayNot(null, "GET", `rooms/records/${room.id}`);
      const listed = async (who) => (await pb.list("rooms", people[who])).items.filter((r) => r.id === room.id).length;
      assert.equal(await listed("mod"), 1, "once, however many members there are");
      assert.equal(await listed("eve"), stranger ? 1 : 0);
    }
  });

  test("created only in the user's own name", async () => {
    await mayNot("eve", "POST", "rooms/records", { name: "r", type: "public", owner: id("ann") });
    await mayNot("eve", "POST", "rooms/records", { name: "r", type: "public" });
    await mayNot(null, "POST", "rooms/records", { name: "r", type: "public", owner: "" });
  });

  test("changed by owner and moderators, within limits", async () => {
    const room = await roomOf("private");
    const target = `rooms/records/${room.id}`;
    for (const who of ["ann", "mod"]) {
      await may(who, "PATCH", target, { name: "renamed" });
      await mayNot(who, "PATCH", target, { type: "public" });
      await mayNot(who, "PATCH", target, { "type+": "public" });
      await mayNot(who, "PATCH", target, { owner: id("mod") });
      await mayNot(who, "PATCH", target, { "owner+": id("mod") });
    }
    for (const who of ["bob", "eve"]) await mayNot(who, "PATCH", target, { name: "taken" });
    for (const who of ["mod", "bob", "eve"]) await mayNot(who, "DELETE", target);
    await may("ann", "DELETE", target);
  });

  test("only a message of the room can be pinned", async () => {
    const [room, other] = [await roomOf("private"), await roomOf("private")];
    const inside = await pb.create("messages", text(room, "bob"), people.bob);
    const outside = await pb.create("messages", text(other, "bob"), people.bob);
    await may("mod", "PATCH", `rooms/records/${room.id}`, { pinned_message: inside.id });
    await mayNot("mod", "PATCH", `rooms/records/${room.id}`, { pinned_message: outside.id });
    await mayNot("bob", "PATCH", `rooms/records/${room.id}`, { pinned_message: inside.id });
    await may("mod", "PATCH", `rooms/records/${room.id}`, { pinned_message: "" });
    await mayNot("ann", "POST", "rooms/records", {
      name: "r",
      type: "private",
      owner: id("ann"),
      pinned_message: inside.id,
    });
  });
});

describe("members", () => {
  const join = (room, who, role = "member") => ({ room: room.id, user: id(who), role });

  test("visible to members of the room", async () => {
    const room = await roomOf("private");
    const seen = async (who) => (await pb.list("room_members", people[who], `filter=(room='${room.id}')`)).totalItems;
    assert.equal(await seen("bob"), 3);
    assert.equal(await seen("eve"), 0);
  });

  test("users may join a public room themselves, as members", async () => {
    const room = await roomOf("public");
    await mayNot("eve", "POST", "room_members/records", join(room, "eve", "owner"));
    await mayNot("eve", "POST", "room_members/records", join(room, "eve", "moderator"));
    await mayNot("eve", "POST", "room_members/records", { ...join(room, "eve"), "role+": "owner" });
    await mayNot("eve", "POST", "room_members/records", join(room, "adm"));
    await may("eve", "POST", "room_members/records", join(room, "eve"));
  });

  test("users are added to a private room with no more power than the user who adds them", async () => {
    const room = await roomOf("private");
    await mayNot("eve", "POST", "room_members/records", join(room, "eve"));
    await mayNot("bob", "POST", "room_members/records", join(room, "eve"));
    await mayNot("mod", "POST", "room_members/records", join(room, "eve", "moderator"));
    await mayNot("mod", "POST", "room_members/records", join(room, "eve", "owner"));
    await mayNot("ann", "POST", "room_members/records", join(room, "eve", "owner"));
    await may("mod", "POST", "room_members/records", join(room, "eve"));
    await may("ann", "POST", "room_members/records", join(room, "adm", "moderator"));
  });

  test("a role in one room gives no power in another room", async () => {
    const room = await roomOf("private"); // Bob is a member here, with a moderator and an owner
    const own = await pb.create("rooms", { name: "bob's", type: "private", owner: id("bob") }, people.bob);
    await may("bob", "POST", "room_members/records", join(own, "eve"));
    await mayNot("bob", "POST", "room_members/records", join(room, "eve"));
    await mayNot("bob", "DELETE", `room_members/records/${room.mod.id}`);
    await mayNot("bob", "PATCH", `room_members/records/${room.mod.id}`, { role: "member" });
    const message = await pb.create("messages", text(room, "ann"), people.ann);
    await mayNot("bob", "PATCH", `messages/records/${message.id}`, { content: "y" });
    await mayNot("bob", "DELETE", `messages/records/${message.id}`);
  });

  test("users change only their own marks; only the owner changes roles", async () => {
    const [room, other] = [await roomOf("private"), await roomOf("private")];
    const bobs = `room_members/records/${room.bob.id}`;
    await may("bob", "PATCH", bobs, { last_read: PAST, muted: true });
    for (const data of [{ role: "owner" }, { role: "moderator" }, { "role+": "owner" }]) {
      await mayNot("bob", "PATCH", bobs, data);
      await mayNot(
        "mod",
        "PATCH",
        `room_members/records/${room.mod.id}`,
        data.role === "moderator" ? { role: "owner" } : data,
      );
    }
    await mayNot("bob", "PATCH", bobs, { room: other.id });
    await mayNot("bob", "PATCH", bobs, { "room+": other.id });
    await mayNot("bob", "PATCH", bobs, { user: id("eve") });
    await mayNot("mod", "PATCH", bobs, { role: "moderator" });
    await mayNot("mod", "PATCH", bobs, { muted: false });
    await mayNot("ann", "PATCH", bobs, { muted: false });
    await mayNot("ann", "PATCH", bobs, { role: "owner" });
    await mayNot("ann", "PATCH", bobs, { user: id("eve") });
    await mayNot("ann", "PATCH", `room_members/records/${room.ann.id}`, { role: "member" });
    await may("ann", "PATCH", bobs, { role: "moderator" });
    await may("ann", "PATCH", bobs, { role: "member" });
  });

  test("users may leave; moderators remove members, the owner anyone else", async () => {
    const room = await roomOf("private");
    const membership = (who) => `room_members/records/${room[who].id}`;
    await mayNot("eve", "DELETE", membership("bob"));
    await mayNot("bob", "DELETE", membership("mod"));
    await mayNot("mod", "DELETE", membership("ann"));
    await may("mod", "DELETE", membership("bob"));
    await mayNot("bob", "GET", `rooms/records/${room.id}`);
    await may("ann", "DELETE", membership("mod"));
    await may("ann", "DELETE", membership("ann"));
  });

  test("a direct room keeps its two members", async () => {
    const room = await roomOf("direct");
    await mayNot("ann", "POST", "room_members/records", join(room, "eve"));
    await mayNot("eve", "POST", "room_members/records", join(room, "eve"));
    await mayNot("ann", "DELETE", `room_members/records/${room.mod.id}`);
    await mayNot("mod", "DELETE", `room_members/records/${room.mod.id}`);
    const { totalItems } = await pb.list("room_members", pb.root, `filter=(room='${room.id}')`);
    assert.equal(totalItems, 2);
    // Hidden by one member, the room stays for the other (/api/konvert/direct/{id}/hide).
    await mayNot("ann", "DELETE", `rooms/records/${room.id}`);
  });
});

describe("messages and reactions", () => {
  test("written by members, in their own name", async () => {
    const [room, open] = [await roomOf("private"), await roomOf("public")];
    await may("bob", "POST", "messages/records", text(room, "bob"));
    await mayNot("bob", "POST", "messages/records", text(room, "ann"));
    await mayNot("bob", "POST", "messages/records", { ...text(room, "bob"), author: "" });
    await mayNot("bob", "POST", "messages/records", { ...text(room, "bob"), "author+": id("ann") });
    await mayNot("eve", "POST", "messages/records", text(room, "eve"));
    await mayNot("eve", "POST", "messages/records", text(open, "eve"));
    await mayNot(null, "POST", "messages/records", { ...text(room, "bob"), author: "" });
  });

  test("a muted user writes nothing and changes nothing", async () => {
    const room = await roomOf("private");
    const message = await pb.create("messages", text(room, "bob"), people.bob);
    await pb.update("users", id("bob"), { muted_until: FUTURE });
    await mayNot("bob", "POST", "messages/records", text(room, "bob"));
    await mayNot("bob", "PATCH", `messages/records/${message.id}`, { content: "y" });
    await mayNot("bob", "POST", "reactions/records", { message: message.id, user: id("bob"), emoji: "x" });
    await may("bob", "GET", `messages/records/${message.id}`);
    await pb.update("users", id("bob"), { muted_until: "" });
  });

  test("visible to users who may view the room", async () => {
    for (const type of ["public", "private"]) {
      const room = await roomOf(type);
      const message = await pb.create("messages", text(room, "bob"), people.bob);
      const reaction = await pb.create("reactions", { message: message.id, user: id("ann"), emoji: "x" }, people.ann);
      for (const target of [`messages/records/${message.id}`, `reactions/records/${reaction.id}`]) {
        await may("mod", "GET", target);
        await (type === "public" ? may : mayNot)("eve", "GET", target);
        await mayNot(null, "GET", target);
      }
      const { totalItems } = await pb.list("messages", people.mod, `filter=(room='${room.id}')`);
      assert.equal(totalItems, 1, "once, however many members there are");
    }
  });

  test("edited and deleted by the author or a moderator, and never moved", async () => {
    const [room, other] = [await roomOf("private"), await roomOf("private")];
    const message = await pb.create("messages", text(room, "bob"), people.bob);
    const target = `messages/records/${message.id}`;
    for (const who of ["bob", "mod", "ann"]) {
      await may(who, "PATCH", target, { content: `by ${who}` });
      await mayNot(who, "PATCH", target, { room: other.id });
      await mayNot(who, "PATCH", target, { "room+": other.id });
      await mayNot(who, "PATCH", target, { author: id("ann") });
      await mayNot(who, "PATCH", target, { "author-": id("bob") });
    }
    for (const who of ["eve", "adm"]) {
      await mayNot(who, "PATCH", target, { content: "y" });
      await mayNot(who, "DELETE", target);
    }
    const anns = await pb.create("messages", text(room, "ann"), people.ann);
    await mayNot("bob", "DELETE", `messages/records/${anns.id}`);
    await may("mod", "DELETE", `messages/records/${anns.id}`);

    await pb.remove("room_members", room.bob.id);
    await mayNot("bob", "PATCH", target, { content: "from outside" });
    await mayNot("bob", "DELETE", target);
  });

  test("admins of the site moderate the rooms of which they are members", async () => {
    const open = await roomOf("public");
    const message = await pb.create("messages", text(open, "bob"), people.bob);
    await mayNot("adm", "DELETE", `messages/records/${message.id}`);
    for (const who of ["adm", "eve"]) {
      await pb.create("room_members", { room: open.id, user: id(who), role: "member" }, people[who]);
    }
    await mayNot("eve", "DELETE", `messages/records/${message.id}`);
    await may("adm", "DELETE", `messages/records/${message.id}`);
  });

  test("users react in their own name, in rooms of which they are members", async () => {
    const [room, open] = [await roomOf("private"), await roomOf("public")];
    const message = await pb.create("messages", text(room, "ann"), people.ann);
    const heard = await pb.create("messages", text(open, "ann"), people.ann);
    const reaction = (message, who) => ({ message: message.id, user: id(who), emoji: "👍" });
    await mayNot("bob", "POST", "reactions/records", reaction(message, "mod"));
    await mayNot("eve", "POST", "reactions/records", reaction(message, "eve"));
    await mayNot("eve", "POST", "reactions/records", reaction(heard, "eve"));
    await may("bob", "POST", "reactions/records", reaction(message, "bob"));
    const { items } = await pb.list("reactions", pb.root, `filter=(message='${message.id}')`);
    await mayNot("bob", "PATCH", `reactions/records/${items[0].id}`, { user: id("mod") });
    await mayNot("mod", "DELETE", `reactions/records/${items[0].id}`);
    await may("bob", "DELETE", `reactions/records/${items[0].id}`);
  });

  test("the messages of a deleted user stay", async () => {
    const room = await roomOf("private");
    people.tmp = await pb.user("tmp");
    await pb.create("room_members", { room: room.id, user: id("tmp"), role: "member" }, people.ann);
    const message = await pb.create("messages", text(room, "tmp"), people.tmp);
    await may("tmp", "DELETE", `users/records/${id("tmp")}`);
    const { items } = await pb.list("messages", pb.root, `filter=(id='${message.id}')`);
    assert.equal(items[0].author, "");
  });
});

describe("people", () => {
  const request = (from, to, status = "pending") => ({ from: id(from), to: id(to), status });

  test("a friend request is sent by one user and answered by the other", async () => {
    await mayNot("eve", "POST", "friend_requests/records", request("ann", "eve"));
    await mayNot("eve", "POST", "friend_requests/records", request("eve", "ann", "accepted"));
    await mayNot("eve", "POST", "friend_requests/records", request("eve", "eve"));
    const { id: sent } = await pb.create("friend_requests", request("eve", "ann"), people.eve);
    const target = `friend_requests/records/${sent}`;
    await mayNot("bob", "GET", target);
    await may("eve", "GET", target);
    await mayNot("eve", "PATCH", target, { status: "accepted" });
    await mayNot("bob", "PATCH", target, { status: "accepted" });
    await mayNot("ann", "PATCH", target, { from: id("bob"), status: "accepted" });
    await mayNot("ann", "PATCH", target, { to: id("bob") });
    await mayNot("ann", "PATCH", target, { "to+": id("bob") });
    await may("ann", "PATCH", target, { status: "rejected" });
    await mayNot("eve", "DELETE", target);
    await may("ann", "DELETE", target);
  });

  test("a room key is written by members and read by its user", async () => {
    const room = await roomOf("private");
    const key = (who) => ({ room: room.id, user: id(who), encrypted_key: "k", key_version: 1 });
    await mayNot("eve", "POST", "room_keys/records", key("eve"));
    await mayNot("eve", "POST", "room_keys/records", key("bob"));
    await mayNot("bob", "POST", "room_keys/records", key("eve")); // not a member: would reach her own channel
    await pb.create("room_members", { room: room.id, user: id("eve"), role: "member" });
    await may("bob", "POST", "room_keys/records", key("eve"));
    const { items } = await pb.list("room_keys", people.eve);
    assert.equal(items.length, 1);
    const target = `room_keys/records/${items[0].id}`;
    for (const who of ["ann", "bob"]) {
      await mayNot(who, "GET", target);
      await mayNot(who, "PATCH", target, { encrypted_key: "other" });
      await mayNot(who, "DELETE", target);
    }
    await mayNot("eve", "PATCH", target, { user: id("ann") });
    await may("eve", "DELETE", target);
  });

  test("achievements are given by the server and visible to signed-in users", async () => {
    const { id: given } = await pb.create("achievements", { user: id("bob"), achievement: "first", progress: 1 });
    await may("eve", "GET", `achievements/records/${given}`);
    await mayNot("bob", "PATCH", `achievements/records/${given}`, { progress: 2 });
    await mayNot("bob", "POST", "achievements/records", { user: id("bob"), achievement: "all" });
    await mayNot(null, "GET", `achievements/records/${given}`);
  });
});
