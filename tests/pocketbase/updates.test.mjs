// Personal channels, and the hooks' answers about the visibility of records.

import assert from "node:assert/strict";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { KANBAN, PASSWORD, PocketBase } from "./harness.mjs";

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

/** Compares IDs in SQLite's order. */
const isAfter = (id, other) => Buffer.compare(Buffer.from(id), Buffer.from(other)) > 0;

/** The pages of a user or class, combined like in the gateway: {class, yes, no}, or null for an unknown user. */
async function whole(who, rows = 3) {
  const all = { class: null, yes: [], no: [] };
  for (let after = ""; after !== null; ) {
    const { page, ...rest } = await ask("visible", { user: who, after, rows });
    assert.deepEqual(rest, { namespace: "room", collection: "rooms" });
    if (page === null) return null;
    const here = (id) => isAfter(id, after) && (page.next === null || !isAfter(id, page.next));
    assert.ok([...page.yes, ...page.no].every(here), page);
    all.class = page.class;
    all.yes.push(...page.yes);
    all.no.push(...page.no);
    after = page.next;
  }
  assert.deepEqual([all.yes.length, all.no.length], [new Set(all.yes).size, new Set(all.no).size]);
  return all;
}

/** The records visible to a user, computed like in the gateway: sorted IDs. */
async function seen({ id }, rows) {
  const { class: name, yes, no } = await whole(id, rows);
  const all = new Set(name === null ? [] : (await whole(`~${name}`, rows)).yes);
  yes.forEach((id) => all.add(id));
  no.forEach((id) => all.delete(id));
  return [...all].sort();
}

/** The records visible to a user, by PocketBase's own list and views: sorted IDs. */
async function truth(user) {
  const { status, body } = await pb.call("GET", "/api/collections/rooms/records?perPage=500", undefined, user);
  if (status !== 200) return [];
  const ids = body.items.map(({ id }) => id);
  const views = await Promise.all(
    ids.map((id) => pb.call("GET", `/api/collections/rooms/records/${id}`, undefined, user)),
  );
  return ids.filter((_, i) => views[i].status === 200).sort();
}

/** The records among `ids` that `who` may view, by individual checks. */
async function views(who, ids) {
  const results = [];
  while (results.length < ids.length) {
    const checks = ids.slice(results.length).map((record) => ({ user: who, record }));
    results.push(...(await ask("view", { checks })).results);
  }
  return ids.filter((_, i) => results[i]);
}

describe("personal channels", () => {
  const channels = async (action) => (await rows(action)).rows.flatMap((row) => row.channels);
  test("friend requests go to both, keys and achievements to their user", async () => {
    const both = [`user:${ann.id}`, `user:${bob.id}`];
    const asks = { from: ann.id, to: bob.id, status: "pending" };
    const {
      result,
      rows: [row, ...more],
    } = await rows(() => pb.create("friend_requests", asks, ann));
    assert.deepEqual([row.channels, row.data.action, row.data.record, more], [both, "create", result, []]);
    assert.deepEqual(await channels(() => pb.update("friend_requests", result.id, { status: "accepted" }, bob)), both);
    assert.deepEqual(await channels(() => pb.remove("friend_requests", result.id, bob)), both);

    const room = await roomOf(ann, "private");
    await pb.create("room_members", { room: room.id, user: bob.id, role: "member" }, ann);
    const key = { room: room.id, user: bob.id, encrypted_key: "k", key_version: 1 };
    assert.deepEqual(await channels(() => pb.create("room_keys", key, ann)), [`user:${bob.id}`]);
    const achievement = { user: eve.id, achievement: "first", progress: 1 };
    assert.deepEqual(await channels(() => pb.create("achievements", achievement)), [`user:${eve.id}`]);
  });
});

describe("the outbox rows of a guarded record", () => {
  test("name its users before and after the change", async () => {
    const {
      result: room,
      rows: [created],
    } = await rows(() => roomOf(ann, "public"));
    assert.deepEqual(created.updates, { channels: [CHANNEL], users: [ann.id] });
    const {
      rows: [updated],
    } = await rows(() => pb.update("rooms", room.id, { owner: bob.id }));
    assert.deepEqual([updated.data.action, updated.updates.users], ["update", [bob.id, ann.id]]);
    const { rows: removed } = await rows(() => pb.remove("rooms", room.id));
    const of = removed.filter((row) => row.updates);
    assert.deepEqual(
      of.map((row) => [row.data.action, row.data.collection]),
      [["delete", "rooms"]],
    );
  });

  test("name no users for other records", async () => {
    const room = await roomOf(ann, "public");
    const { rows: added } = await rows(() =>
      pb.create("room_members", { room: room.id, user: bob.id, role: "member" }),
    );
    assert.deepEqual(
      added.map((row) => "updates" in row),
      [false],
    );
  });
});

describe("visible records", () => {
  let ids;
  const setRules = async (listRule, viewRule) => {
    const { status, body } = await pb.call("PATCH", "/api/collections/rooms", { listRule, viewRule }, pb.root);
    assert.equal(status, 200, JSON.stringify(body));
  };
  before(async () => {
    for (const type of ["public", "private", "direct"]) {
      for (const owner of [ann, bob]) await roomOf(owner, type);
    }
    const shared = await roomOf(ann, "private");
    await pb.create("room_members", { room: shared.id, user: bob.id, role: "moderator" });
    await pb.update("users", eve.id, { role: "admin" });
    ids = (await pb.list("rooms")).items.map(({ id }) => id).sort();
  });

  const owned = () => `owner = @request.auth.id`;
  const moderated = () =>
    `@request.auth.room_members_via_user.room ?= id && @request.auth.room_members_via_user.role ?= "moderator"`;
  // The viewRule, whether users share a class, and the listRule if it differs.
  const rules = [
    ["as it is", () => rule, true],
    [
      "seen from the room",
      () => `@request.auth.id != "" && (type = "public" || room_members_via_room.user ?= @request.auth.id)`,
      true,
    ],
    ["the record names the user", () => `owner = @request.auth.id || type = "direct"`, true],
    ["the record must not name the user", () => `owner != @request.auth.id && type = "public"`, true],
    ["a field of the account", () => `@request.auth.role = "admin" || owner.id = @request.auth.id`, false],
    ["a field of the account alone", () => `@request.auth.role = "admin" || type = "public"`, true],
    ["open", () => "", true],
    ["locked", () => null, false],
    [
      "more asked of the membership",
      () => `room_members_via_room.user ?= @request.auth.id && room_members_via_room.role ?= "moderator"`,
      true,
    ],
    ["and of the account's side", moderated, false],
    ["something of the request", (context) => `@request.context = "${context}" && @request.auth.id != ""`, false],
    ["closed to the realtime", (context) => `@request.context != "${context}" && @request.auth.id != ""`, false],
    ["the request, and the account's side", () => `@request.context != "expand" && ${moderated()}`, false],
    [
      "any collection",
      () => `@collection.room_members.room ?= id && @collection.room_members.user ?= @request.auth.id`,
      false,
    ],
    ["a certain user", () => `${rule} && @request.auth.id != "${bob.id}"`, false],
    [
      "text that is no name",
      () => `name != "@request.auth.id != ''" && @request.auth.name != "ann" // @request.auth.id)`,
      true,
    ],
    ["through a relation", () => `owner.room_members_via_user.user ?= @request.auth.id`, false],
    ["open, but listed for the owner", () => "", true, owned],
    ["viewed by the owner, listed openly", owned, true, () => ""],
    ["listed with the locked rule", () => "", false, () => null],
    ["listed and viewed by different rules", () => `${rule} // all members`, true, () => `type != "public" // others`],
    ["two rules, one from the account's side", moderated, false, owned],
    ["two rules, the other from the account's side", owned, false, moderated],
  ];
  for (const [name, view, sharing, list = view] of rules) {
    test(name, async () => {
      // The context of PocketBase's API differs from the context of its realtime and of the gateway's checks.
      await setRules(list("default"), view("default"));
      const truths = await Promise.all([ann, bob, eve].map(truth));
      await setRules(list("realtime"), view("realtime"));
      try {
        assert.equal((await whole(ann.id)).class !== null, sharing);
        for (const [i, user] of [ann, bob, eve].entries()) {
          for (const rows of [3, 1000]) assert.deepEqual(await seen(user, rows), truths[i], user.record?.name);
          assert.deepEqual(await views(user.id, ids), truths[i]);
        }
        if (!sharing) return;
        // The class, by individual records and as a whole.
        const of = await whole(bob.id);
        assert.deepEqual(await views(`~${of.class}`, ids), [...(await whole(`~${of.class}`)).yes].sort());
      } finally {
        await setRules(rule, rule);
      }
    });
  }

  test("a user without own records sees the class's records; unknown users and records get no answer", async () => {
    const carl = await pb.user("carl");
    const { class: name, yes, no } = await whole(carl.id);
    assert.deepEqual([yes, no], [[], []]);
    assert.deepEqual([...(await whole(`~${name}`)).yes].sort(), await truth(carl));
    assert.equal(await whole("nobody"), null);
    const other = JSON.stringify([JSON.parse(name)[0], [["role", "user"]]]);
    assert.equal(await whole(`~${other}`), null, "a class of an earlier rule");
    const checks = [
      { user: "nobody", record: ids[0] },
      { user: carl.id, record: "nothing" },
      { user: `~${other}`, record: ids[0] },
    ];
    assert.deepEqual((await ask("view", { checks })).results, [false, null, false]);
  });

  test("ids of any characters are found page by page, whatever their order in JavaScript", async () => {
    const {
      body: { fields },
    } = await pb.call("GET", "/api/collections/rooms", undefined, pb.root);
    const {
      body: { fields: ofUsers },
    } = await pb.call("GET", "/api/collections/users", undefined, pb.root);
    for (const id of [fields, ofUsers].map((fields) => fields.find(({ name }) => name === "id"))) {
      Object.assign(id, { pattern: "^[^ ]+$", min: 0, max: 1000 });
    }
    assert.equal((await pb.call("PATCH", "/api/collections/rooms", { fields }, pb.root)).status, 200);
    assert.equal((await pb.call("PATCH", "/api/collections/users", { fields: ofUsers }, pb.root)).status, 200);
    const made = { email: "tilde@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
    await pb.create("users", { ...made, id: "~[ü" });
    const user = await pb.login("tilde@example.com", PASSWORD);
    for (const id of ["zü", "ａ1", "ａ2", "😀1", "😀2", "ｚ", "日本", "~x", "x".repeat(1000)])
      await roomOf(user, "private", { id });
    for (const rows of [1, 2, 3, 1000]) assert.deepEqual(await seen(user, rows), await truth(user));
    assert.deepEqual(await views(user.id, await truth(user)), await truth(user));
    const checks = ["room:ａ1", "room:nü", `user:${user.id}`].map((channel) => ({ user: user.id, channel }));
    assert.deepEqual((await ask("authorize", { checks })).results, ["allowed", "denied", "allowed"]);
  });

  test("a view check returns visible records unchanged, and nothing of invisible records", async () => {
    const { items } = await pb.list("rooms");
    const [open, closed] = ["public", "private"].map((type) => items.find((room) => room.type === type));
    const checks = [
      { user: eve.id, record: open.id },
      { user: eve.id, record: closed.id },
    ];
    delete open.direct_key; // a hidden field, which superusers alone read
    const expected = { results: [true, false], records: { [open.id]: open }, own: {}, perReader: false, truncated: [] };
    assert.deepEqual(await ask("view", { checks }), expected);
  });
});

describe("links to a parent of the record", () => {
  const MEMBER = "workspace.memberships_via_workspace.member ?= @request.auth.id";
  let kanban, people, boards;
  before(async () => {
    kanban = await PocketBase.start({ application: KANBAN });
    people = [];
    for (const name of ["ann", "ben", "cat"]) {
      const account = {
        email: `${name}@example.com`,
        password: PASSWORD,
        passwordConfirm: PASSWORD,
        name,
        plan: "free",
      };
      await kanban.create("members", account);
      people.push({ name, ...(await kanban.login(account.email, PASSWORD, "members")) });
    }
    const [ann, ben, cat] = people;
    // Three workspaces: Ann owns the first, Ben is in the first and second, Cat is only a guest.
    const workspaces = [];
    for (const owner of [ann, cat, cat])
      workspaces.push(await kanban.create("workspaces", { name: "W", owner: owner.id }));
    await kanban.create("memberships", { workspace: workspaces[0].id, member: ben.id, role: "viewer" });
    await kanban.create("memberships", { workspace: workspaces[0].id, member: ann.id, role: "editor" });
    await kanban.create("memberships", { workspace: workspaces[1].id, member: ben.id, role: "editor" });
    for (const { id } of workspaces) {
      for (const visibility of ["workspace", "private"]) {
        await kanban.create("boards", { workspace: id, title: "B", visibility });
        await kanban.create("boards", { workspace: id, title: MEMBER, visibility, guests: [cat.id] });
      }
    }
    boards = (await kanban.list("boards")).items.map(({ id }) => id).sort();
  });
  after(() => kanban?.stop());

  const ask = async (route, question) => {
    const { status, body } = await kanban.gateway("POST", `/api/gateway/${route}`, {
      channel: "board-updates",
      ...question,
    });
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  };
  /** The records visible to a user, computed like in the gateway: sorted IDs. */
  const seenBy = async ({ id }) => {
    const of = async (user) => (await ask("visible", { user, after: "", rows: 1000 })).page;
    const { class: name, yes, no } = await of(id);
    const all = new Set(name === null ? [] : (await of(`~${name}`)).yes);
    yes.forEach((id) => all.add(id));
    no.forEach((id) => all.delete(id));
    return [...all].sort();
  };
  const rules = {
    alone: MEMBER,
    "beside others": `(visibility = "workspace" && ${MEMBER}) || guests.id ?= @request.auth.id || workspace.owner = @request.auth.id`,
    twice: `(${MEMBER} && visibility = "private") || (guests.id ?= @request.auth.id && ${MEMBER})`,
    "with more asked of the same link": `${MEMBER} && workspace.memberships_via_workspace.role ?= "editor"`,
    "with more asked of any link": `${MEMBER} || workspace.memberships_via_workspace.role ?= "viewer" && visibility = "private"`,
    "the other way round": "@request.auth.id ?= workspace.memberships_via_workspace.member",
    "every link": MEMBER.replace("?=", "="),
    "none of the links": MEMBER.replace("?=", "?!="),
    "also as text": `${MEMBER} && title != "${MEMBER}"`,
    "as text alone": `title = "${MEMBER}"`,
    "none, and a relation with several values": "guests ~ @request.auth.id",
    "none, and each value of such a relation": `guests:each ~ @request.auth.id || visibility = "private"`,
  };
  for (const [name, rule] of Object.entries(rules)) {
    test(name, async () => {
      const rules = { listRule: rule, viewRule: rule };
      assert.equal((await kanban.call("PATCH", "/api/collections/boards", rules, kanban.root)).status, 200);
      const counts = [];
      for (const user of people) {
        const { body } = await kanban.call("GET", "/api/collections/boards/records?perPage=500", undefined, user);
        const truth = body.items.map(({ id }) => id).sort();
        assert.deepEqual(await seenBy(user), truth, user.name);
        const { results } = await ask("view", { checks: boards.map((record) => ({ user: user.id, record })) });
        assert.deepEqual(
          boards.filter((_, i) => results[i]),
          truth,
          user.name,
        );
        counts.push(truth.length);
      }
      // Otherwise the test would prove nothing.
      assert.ok(new Set(counts).size > 1 || name === "as text alone", `the rule tells users apart: ${counts}`);
    });
  }
});

describe("records that differ by reader, and large ones", () => {
  let small;
  before(async () => {
    await pb.stop();
    const hook = `
onRecordEnrich((e) => {
  e.record.withCustomData(true);
  e.record.set("reader", e.requestInfo.auth ? e.requestInfo.auth.id : "nobody");
  e.next();
}, "rooms");
`;
    const prepare = (folder) => {
      const config = path.join(folder, "pb_hooks/gateway.config.js");
      const text = readFileSync(config, "utf8").replace("relay: {", "outbox: { maxEventBytes: 1024 },\n  relay: {");
      writeFileSync(config, text);
      appendFileSync(path.join(folder, "pb_hooks/enrich.pb.js"), hook);
    };
    pb = await PocketBase.start({ prepare });
    [ann, bob] = [await pb.user("ann"), await pb.user("bob")];
    small = await roomOf(ann, "public");
  });

  test("each reader gets the record as PocketBase shows it to that reader, without a superuser's fields", async () => {
    const checks = [ann, bob].map(({ id }) => ({ user: id, record: small.id }));
    const { results, records, own, perReader } = await ask("view", { checks });
    assert.deepEqual([results, records, perReader], [[true, true], {}, true]);
    for (const [i, user] of [ann, bob].entries()) {
      const { body } = await pb.call("GET", `/api/collections/rooms/records/${small.id}`, undefined, user);
      assert.equal(body.reader, user.id);
      assert.deepEqual(own[i], body);
    }
  });

  test("with hooks too, every visible record is found", async () => {
    const {
      body: { viewRule, listRule },
    } = await pb.call("GET", "/api/collections/rooms", undefined, pb.root);
    const rule = `@request.auth.room_members_via_user.room ?= id && @request.auth.room_members_via_user.role != "x"`;
    for (let i = 0; i < 25; i++) await roomOf(ann, "private");
    for (const rules of [
      { viewRule, listRule },
      { viewRule: rule, listRule: rule },
    ]) {
      assert.equal((await pb.call("PATCH", "/api/collections/rooms", rules, pb.root)).status, 200);
      for (const user of [ann, bob]) assert.deepEqual(await seen(user, 1000), await truth(user));
    }
    await pb.call("PATCH", "/api/collections/rooms", { viewRule, listRule }, pb.root);
  });

  test("a record too large or too deep for an event is given as its ID only", async () => {
    await pb.call("PATCH", "/api/collections/rooms", { viewRule: "", listRule: "" }, pb.root);
    const {
      body: { fields },
    } = await pb.call("GET", "/api/collections/rooms", undefined, pb.root);
    fields.push({ type: "text", name: "about", max: 5000 }, { type: "json", name: "tree" });
    assert.equal((await pb.call("PATCH", "/api/collections/rooms", { fields }, pb.root)).status, 200);
    const large = await roomOf(ann, "public", { about: "x".repeat(2000) });
    const { results, own, truncated } = await ask("view", { checks: [{ user: ann.id, record: large.id }] });
    assert.deepEqual([results, own, truncated], [[true], { 0: { id: large.id } }, [large.id]]);
    const deep = await roomOf(ann, "public", { tree: "[".repeat(128) + "]".repeat(128) });
    const view = await ask("view", { checks: [{ user: ann.id, record: deep.id }] });
    assert.deepEqual([view.own, view.truncated], [{ 0: { id: deep.id } }, [deep.id]]);
  });
});
