// Personal channels, and what the hooks tell the gateway of who sees which records.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { PocketBase } from "./harness.mjs";

const CHANNEL = "room-updates";
let pb, ann, bob, eve, rule;

before(async () => {
  pb = await PocketBase.start();
  [ann, bob, eve] = [await pb.user("ann"), await pb.user("bob"), await pb.user("eve")];
  rule = (await pb.call("GET", "/api/collections/rooms", undefined, pb.root)).body.viewRule;
});

after(() => pb?.stop());

async function rows(action) {
  const { last } = await pb.events();
  const result = await action();
  return { result, rows: (await pb.events(last)).events };
}

const roomOf = (owner, type, more) => pb.create("rooms", { name: type, type, owner: owner.id, ...more });
const ask = async (route, question) => {
  const { status, body } = await pb.gateway("POST", `/api/gateway/${route}`, { channel: CHANNEL, ...question });
  assert.equal(status, 200, JSON.stringify(body));
  return body;
};

/** What each user sees, as the gateway adds it up: sorted IDs. */
async function seen(...users) {
  const { users: answers, classes, ...rest } = await ask("visible", { users: users.map(({ id }) => id) });
  assert.deepEqual(rest, { namespace: "room", collection: "rooms" });
  return answers.map(({ class: key, yes, no }) => {
    const all = new Set(key === null ? [] : classes[key]);
    yes.forEach((id) => all.add(id));
    no.forEach((id) => all.delete(id));
    return [...all].sort();
  });
}

/** What each user sees, by PocketBase's own answer for each room. */
async function truth(...users) {
  const { items } = await pb.list("rooms");
  return Promise.all(users.map(async (user) => {
    const { results } = await ask("view", { checks: items.map(({ id }) => ({ user: user.id, record: id })) });
    return items.map(({ id }) => id).filter((_, i) => results[i]).sort();
  }));
}

describe("personal channels", () => {
  const channels = async (action) => (await rows(action)).rows.flatMap((row) => row.channels);
  test("friend requests go to both, keys and achievements to their user", async () => {
    const both = [`user:${ann.id}`, `user:${bob.id}`];
    const asks = { from: ann.id, to: bob.id, status: "pending" };
    const { result, rows: [row, ...more] } = await rows(() => pb.create("friend_requests", asks, ann));
    assert.deepEqual([row.channels, row.data.action, row.data.record, more], [both, "create", result, []]);
    assert.deepEqual(await channels(() => pb.update("friend_requests", result.id, { status: "accepted" }, bob)), both);
    assert.deepEqual(await channels(() => pb.remove("friend_requests", result.id, bob)), both);

    const room = await roomOf(ann, "private");
    const key = { room: room.id, user: bob.id, encrypted_key: "k", key_version: 1 };
    assert.deepEqual(await channels(() => pb.create("room_keys", key, ann)), [`user:${bob.id}`]);
    const achievement = { user: eve.id, achievement: "first", progress: 1 };
    assert.deepEqual(await channels(() => pb.create("achievements", achievement)), [`user:${eve.id}`]);
  });
});

describe("what the outbox says of a guarded record", () => {
  test("whom it names, before and after", async () => {
    const { result: room, rows: [created] } = await rows(() => roomOf(ann, "public"));
    assert.deepEqual(created.updates, { channels: [CHANNEL], users: [ann.id] });
    const { rows: [updated] } = await rows(() => pb.update("rooms", room.id, { owner: bob.id }));
    assert.deepEqual([updated.data.action, updated.updates.users], ["update", [bob.id, ann.id]]);
    const { rows: removed } = await rows(() => pb.remove("rooms", room.id));
    const of = removed.filter((row) => row.updates);
    assert.deepEqual(of.map((row) => [row.data.action, row.data.collection]), [["delete", "rooms"]]);
  });

  test("nothing of other records", async () => {
    const room = await roomOf(ann, "public");
    const { rows: added } = await rows(() => pb.create("room_members", { room: room.id, user: bob.id, role: "member" }));
    assert.deepEqual(added.map((row) => "updates" in row), [false]);
  });
});

describe("who sees what", () => {
  const setRule = async (viewRule) => {
    const { status, body } = await pb.call("PATCH", "/api/collections/rooms", { viewRule }, pb.root);
    assert.equal(status, 200, JSON.stringify(body));
  };
  before(async () => {
    for (const type of ["public", "private", "direct"]) {
      for (const owner of [ann, bob]) await roomOf(owner, type);
    }
    const shared = await roomOf(ann, "private");
    await pb.create("room_members", { room: shared.id, user: bob.id, role: "moderator" });
    await pb.update("users", eve.id, { role: "admin" });
  });

  // Each with whether users share what they see.
  const rules = [
    ["as it is", () => rule, true],
    ["seen from the room", () => `@request.auth.id != "" && (type = "public" || room_members_via_room.user ?= @request.auth.id)`, true],
    ["the record names the user", () => `owner = @request.auth.id || type = "direct"`, true],
    ["the record must not name the user", () => `owner != @request.auth.id && type = "public"`, true],
    ["a field of the account", () => `@request.auth.role = "admin" || owner.id = @request.auth.id`, false],
    ["a field of the account alone", () => `@request.auth.role = "admin" || type = "public"`, true],
    ["open", () => "", true],
    ["locked", () => null, true],
    ["more asked of the membership", () => `room_members_via_room.user ?= @request.auth.id && room_members_via_room.role ?= "moderator"`, true],
    ["and of the account's side", () => `@request.auth.room_members_via_user.room ?= id && @request.auth.room_members_via_user.role ?= "moderator"`, false],
    ["something of the request", () => `@request.context = "default" && @request.auth.id != ""`, false],
    ["any collection", () => `@collection.room_members.room ?= id && @collection.room_members.user ?= @request.auth.id`, false],
    ["a certain user", () => `${rule} && @request.auth.id != "${bob.id}"`, false],
    ["text that is no name", () => `name != "@request.auth.id != ''" && @request.auth.name != "ann" // @request.auth.id`, true],
  ];
  for (const [name, make, sharing] of rules) {
    test(name, async () => {
      await setRule(make());
      try {
        const { users } = await ask("visible", { users: [ann.id] });
        assert.equal(users[0].class !== null, sharing);
        assert.deepEqual(await seen(ann, bob, eve), await truth(ann, bob, eve));
        // The class, of single records and as a whole.
        const { items } = await pb.list("rooms");
        const { results } = await ask("view", { checks: items.map(({ id }) => ({ user: `~${bob.id}`, record: id })) });
        const { users: [bobs], classes } = await ask("visible", { users: [bob.id] });
        const expected = sharing ? classes[bobs.class] : [];
        assert.deepEqual(items.map(({ id }) => id).filter((_, i) => results[i]).sort(), [...expected].sort());
      } finally {
        await setRule(rule);
      }
    });
  }

  test("a user whom nothing names sees what his class does; there is nobody and nothing", async () => {
    const carl = await pb.user("carl");
    const { users: [carls, nobody], classes } = await ask("visible", { users: [carl.id, "nobody"] });
    assert.deepEqual([carls.yes, carls.no, nobody], [[], [], null]);
    assert.deepEqual([[...classes[carls.class]].sort()], await truth(carl));
    assert.deepEqual((await ask("view", { checks: [{ user: "nobody", record: classes[carls.class][0] }, { user: carl.id, record: "nothing" }] })).results, [false, false]);
  });

  test("a view comes with the record as it is, and nothing of those that nobody may view", async () => {
    const { items } = await pb.list("rooms");
    const [open, closed] = ["public", "private"].map((type) => items.find((room) => room.type === type));
    const checks = [{ user: eve.id, record: open.id }, { user: eve.id, record: closed.id }];
    assert.deepEqual(await ask("view", { checks }), { collection: "rooms", results: [true, false], records: { [open.id]: open } });
  });
});
