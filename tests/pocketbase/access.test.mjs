// The access changes in the hooks' events: every change that may decide about a subscription, and no other change.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Intake, PocketBase } from "./harness.mjs";

const FUTURE = "2100-01-01 00:00:00.000Z";
const user = ({ id }) => ({ cause: "user", user: id });
const member = (room, { id }) => ({ cause: "member", channel: `room:${room.id}`, user: id });
const related = (room) => ({ cause: "related", channel: `room:${room.id}` });
const record = (room) => ({ cause: "record", channel: `room:${room.id}` });
const deleted = (room) => ({ cause: "deleted", channel: `room:${room.id}` });
const statusOf = ({ id }) => ({ cause: "deleted", channel: `status:${id}` });
const anyRoom = { cause: "related", namespace: "room" };
const rules = { cause: "rules" };

let intake, pb, ann, bob, room, rule;

/** The outbox rows added by `action`. */
async function rows(action) {
  const { last } = await pb.events();
  await action();
  return (await pb.events(last)).events;
}

/** The scopes of the rows, in order. */
const scopes = (rows) => rows.flatMap((row) => row.access ?? []);

/** Checks that `action` adds exactly these scopes, besides other data. */
async function gives(action, ...expected) {
  assert.deepEqual(scopes(await rows(action)), expected);
}

const roomOf = (owner, type = "private") => pb.create("rooms", { name: type, type, owner: owner.id });
const join = (room, user, role = "member") => pb.create("room_members", { room: room.id, user: user.id, role });

async function collection(name, change) {
  const { status, body } = await pb.call("PATCH", `/api/collections/${name}`, change, pb.root);
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

before(async () => {
  intake = await Intake.start();
  pb = await PocketBase.start({ gatewayUrl: intake.url });
  ann = await pb.user("ann");
  bob = await pb.user("bob");
  room = await roomOf(ann);
  rule = (await pb.call("GET", "/api/collections/rooms", undefined, pb.root)).body.viewRule;
});

after(async () => {
  await pb?.stop();
  intake?.stop();
});

describe("memberships", () => {
  test("added: in the row of the relayed change, posted as pulled", async () => {
    const [row, ...more] = await rows(() => join(room, bob));
    assert.deepEqual(more, []);
    assert.deepEqual(row.channels, [`room:${room.id}`]);
    assert.equal(row.data.action, "create");
    assert.deepEqual(row.access, [member(room, bob)]);
    assert.deepEqual(Object.keys(row), ["seq", "at", "channels", "data", "access"]);
    assert.deepEqual(intake.events.at(-1), row);
  });

  test("moved to another room, and given to another user", async () => {
    const other = await roomOf(ann);
    const eve = await pb.user("eve");
    const { items } = await pb.list("room_members", pb.root, `filter=(room='${room.id}'%26%26user='${bob.id}')`);
    const moved = await rows(() => pb.update("room_members", items[0].id, { room: other.id }));
    assert.deepEqual(
      moved.map((row) => row.data.action),
      ["delete", "create"],
    );
    assert.deepEqual(
      moved.map((row) => row.access),
      [[member(room, bob), member(other, bob)], undefined],
    );
    await gives(() => pb.update("room_members", items[0].id, { user: eve.id }), member(other, bob), member(other, eve));
    await gives(() => pb.remove("room_members", items[0].id), member(other, eve));
  });

  test("a read mark, a mute and a role are no access change", async () => {
    const { id } = await join(room, bob);
    await gives(() => pb.update("room_members", id, { last_read: FUTURE }));
    await gives(() => pb.update("room_members", id, { muted: true }));
    await gives(() => pb.update("room_members", id, { role: "moderator" }));
    await gives(() => pb.remove("room_members", id), member(room, bob));
  });

  test("a batch adds all of its access changes or none", async () => {
    const [one, two] = [await roomOf(ann), await roomOf(ann)];
    const entry = (room, type) => ["POST", "room_members", { room: room.id, user: bob.id, role: type }];
    assert.deepEqual(await rows(() => pb.batch([entry(one, "member"), entry(two, "no such role")])), []);
    await gives(() => pb.batch([entry(one, "member"), entry(two, "member")]), member(one, bob), member(two, bob));
  });
});

describe("rooms", () => {
  test("a change of type is in the row of the update; a change of name is no access change", async () => {
    const [row, ...more] = await rows(() => pb.update("rooms", room.id, { type: "public", name: "x" }));
    assert.deepEqual(more, []);
    assert.deepEqual([row.data.action, row.access], ["update", [record(room)]]);
    await pb.update("rooms", room.id, { type: "private" });

    const [renamed] = await rows(() => pb.update("rooms", room.id, { name: "renamed" }));
    assert.ok(!("access" in renamed));
  });

  test("created: its owner becomes a member", async () => {
    let made;
    const added = await rows(async () => (made = await roomOf(bob)));
    assert.deepEqual(scopes(added), [member(made, bob)]);
  });

  test("deleted, with its memberships", async () => {
    const doomed = await roomOf(ann);
    await gives(() => pb.remove("rooms", doomed.id), member(doomed, ann), deleted(doomed));
  });

  test("messages and reactions are no access change", async () => {
    await gives(async () => {
      const message = await pb.create("messages", { room: room.id, author: ann.id, content: "x", type: "text" });
      await pb.update("messages", message.id, { content: "y" });
      await pb.create("reactions", { message: message.id, user: ann.id, emoji: "👍" });
      await pb.remove("messages", message.id);
    });
  });
});

describe("users", () => {
  const change = (who, data) => () => pb.update("users", who.id, data);

  test("a ban, a mute and a block: in a separate row", async () => {
    for (const data of [
      { banned_until: FUTURE },
      { banned_until: "" },
      { muted_until: FUTURE },
      { blocked: [ann.id] },
      { blocked: [] },
    ]) {
      const [row, ...more] = await rows(change(bob, data));
      assert.deepEqual(more, []);
      const { seq, at } = row;
      assert.deepEqual(row, { seq, at, channels: [], data: null, access: [user(bob)] }, JSON.stringify(data));
      assert.ok(Math.abs(Date.now() - at) < 60_000, `${at} is the time of the write`);
      assert.deepEqual(intake.events.at(-1), row);
    }
    assert.deepEqual(await rows(change(bob, { status_text: "hi", name: "Bob", role: "moderator" })), []);
  });

  test("a new password, a new e-mail address, logged out everywhere", async () => {
    const eve = await pb.user("eve2");
    const key = async () => (await pb.accounts(eve))[0].key;
    let old = await key();
    for (const data of [
      { password: "password-456", passwordConfirm: "password-456" },
      { email: "eve3@example.com" },
      { tokenKey: "k".repeat(50) },
    ]) {
      await gives(change(eve, data), user(eve));
      assert.notEqual(await key(), old, Object.keys(data)[0]);
      old = await key();
    }
  });

  test("a login and a new user are no access change", async () => {
    assert.deepEqual(await rows(() => pb.user("fay")), []);
  });

  test("deleted, with their memberships", async () => {
    const gus = await pb.user("gus");
    await join(room, gus);
    await gives(() => pb.remove("users", gus.id), member(room, gus), user(gus), statusOf(gus));
  });

  test("a ban in a failing batch adds nothing", async () => {
    const body = {
      requests: [
        { method: "PATCH", url: `/api/collections/users/records/${bob.id}`, body: { banned_until: FUTURE } },
        { method: "PATCH", url: "/api/collections/users/records/missing", body: {} },
      ],
    };
    assert.deepEqual(
      await rows(async () => assert.equal((await pb.call("POST", "/api/batch", body, pb.root)).status, 400)),
      [],
    );
  });
});

describe("collections", () => {
  test("an edited rule, a changed field, a new key of all tokens", async () => {
    const { fields } = await collection("rooms", {});
    const field = { type: "text", name: "topic" };
    await gives(() => collection("rooms", { viewRule: `${rule} && name != ""` }), rules);
    await gives(() => collection("rooms", { viewRule: rule }), rules);
    await gives(() => collection("room_members", { listRule: null }), rules);
    await gives(() => collection("rooms", { fields: [...fields, field] }), rules);
    await gives(() => collection("rooms", { fields }), rules);

    const secret = "s".repeat(50);
    const [row] = await rows(() => collection("users", { authToken: { secret, duration: 1000 } }));
    assert.deepEqual(row.access, [rules]);
    assert.deepEqual([row.channels, row.data], [[], null]);
    assert.deepEqual(intake.events.at(-1), row);
    ann = await pb.login(ann.email, "password-123");
    const keys = await pb.accounts(ann);
    assert.ok(keys[0].key.endsWith(secret));
    const all = JSON.stringify([await pb.events(), intake.posts]);
    for (const { key } of keys) assert.ok(!all.includes(secret) && !all.includes(key.slice(0, -50)));
  });

  test("changes of collections that no access depends on add nothing", async () => {
    assert.deepEqual(await rows(() => collection("achievements", { listRule: null })), []);
    const made = await pb.call("POST", "/api/collections", { name: "notes", type: "base", fields: [] }, pb.root);
    assert.equal(made.status, 200);
    assert.deepEqual(await rows(() => pb.call("DELETE", "/api/collections/notes", undefined, pb.root)), []);
  });

  test("a rule that PocketBase refuses adds nothing, and the old rule stays in force", async () => {
    const refused = async () =>
      assert.equal(
        (await pb.call("PATCH", "/api/collections/rooms", { viewRule: "no_such = 1" }, pb.root)).status,
        400,
      );
    assert.deepEqual(await rows(refused), []);
    await gives(() => pb.update("rooms", room.id, { type: "public" }), record(room));
    await gives(() => pb.update("rooms", room.id, { type: "private" }), record(room));
  });

  test("a failing import of several collections adds nothing", async () => {
    const { body } = await pb.call("GET", "/api/collections/rooms", undefined, pb.root);
    // The collection with the latest date is imported last, after the changed rule of rooms.
    const bad = { name: "rooms2", type: "base", viewRule: "no_such = 1", fields: [], created: FUTURE };
    const changed = { ...body, viewRule: `name != "secret"` };
    const send = async () =>
      assert.equal(
        (await pb.call("PUT", "/api/collections/import", { collections: [changed, bad] }, pb.root)).status,
        400,
      );
    assert.deepEqual(await rows(send), []);
    await gives(() => pb.update("rooms", room.id, { name: "not in the rule any more" }));
    await gives(() => pb.update("rooms", room.id, { type: "public" }), record(room));
    await gives(() => pb.update("rooms", room.id, { type: "private" }), record(room));
  });
});

describe("migrations", () => {
  const migration = (name, body) => (folder) =>
    writeFileSync(path.join(folder, "pb_migrations", name), `migrate((app) => {${body}}, (app) => {});`);

  test("before the outbox exists, and while there are no users, add nothing; later ones add their access changes", async () => {
    const early = `
      const users = app.findCollectionByNameOrId("users");
      app.save(new Record(users, { email: "x@example.com", password: "password-123" }));
      users.listRule = null;
      app.save(users);
      app.delete(app.findAuthRecordByEmail("users", "x@example.com"));`;
    const later = `
      const users = app.findCollectionByNameOrId("users");
      users.viewRule = "name = 1";
      app.save(users);`;

    let pb = await PocketBase.start({ prepare: migration("1700000000_early.js", early) });
    try {
      assert.deepEqual((await pb.events()).events, []);
      await pb.user("ann");
      await pb.stop({ keep: true });
      migration("1900000000_later.js", later)(pb.folder);
      pb = await PocketBase.start({ folder: pb.folder });
      assert.deepEqual(scopes((await pb.events()).events), [rules]);
    } finally {
      await pb.stop();
    }
  });
});

describe("other rules", () => {
  let other, membership, message, parent;

  before(async () => {
    const find = async (name) => (await pb.call("GET", `/api/collections/${name}`, undefined, pb.root)).body;
    const [users, rooms] = [await find("users"), await find("rooms")];
    const relation = (name, to, maxSelect = 1) => ({ type: "relation", name, collectionId: to.id, maxSelect });
    const make = async (body) => {
      const answer = await pb.call("POST", "/api/collections", { type: "base", ...body }, pb.root);
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return answer.body;
    };
    const teams = await make({
      name: "teams",
      fields: [{ type: "text", name: "level" }, { type: "text", name: "motto" }, relation("leader", users)],
    });
    await make({
      name: "teams_of_rooms",
      fields: [
        relation("team", teams),
        relation("rooms", rooms, 99),
        relation("leads", users, 99),
        { type: "text", name: "note" },
      ],
    });
    await make({ name: "bans", fields: [relation("user", users), { type: "text", name: "why" }] });
    await make({ name: "seen", type: "view", viewQuery: "SELECT id, level FROM teams" });
    await make({ name: "seen_again", type: "view", viewQuery: "SELECT id, level FROM seen" });
    await collection("rooms", {
      fields: [
        ...rooms.fields,
        relation("parent", rooms),
        relation("team", teams),
        relation("guests", users, 9),
        { type: "json", name: "options" },
      ],
    });
    await collection("users", { fields: [...users.fields, relation("team", teams)] });
    other = await roomOf(ann);
    parent = await roomOf(ann);
    membership = await join(other, bob);
    message = await pb.create("messages", { room: other.id, author: bob.id, content: "x", type: "text" });
  });

  /** Checks the scopes of several writes under a viewRule of rooms. */
  const under = (name, viewRule, body, listRule = viewRule) =>
    test(name, async () => {
      await collection("rooms", { viewRule, listRule });
      try {
        await body();
      } finally {
        await collection("rooms", { viewRule: rule, listRule: rule });
      }
    });
  const change =
    (name, { id }, data) =>
    () =>
      pb.update(name, id, data);
  const make = (name, data) => async () => (made = await pb.create(name, data));
  let made;

  under("locked: only changes of the account and the room's deletion", null, async () => {
    await gives(change("rooms", other, { type: "public" }));
    await gives(change("rooms", other, { type: "private" }));
    await gives(change("users", bob, { role: "admin" }));
    await gives(change("users", bob, { banned_until: FUTURE }), user(bob));
    await gives(change("users", bob, { banned_until: "" }), user(bob));
  });

  under("public: the same", "", async () => {
    await gives(() => pb.remove("room_members", membership.id));
    membership = await join(other, bob);
  });

  under("a field of the account", `@request.auth.role = "admin" // @request.auth.name, "type"`, async () => {
    await gives(change("users", bob, { role: "user" }), user(bob));
    await gives(change("users", bob, { name: "B" }));
    await gives(change("rooms", other, { type: "public" }));
  });

  under(
    "names inside text literals are ignored",
    `name = 'type \\' @request.auth.role' || name = "a \\" guests"`,
    async () => {
      await gives(change("rooms", other, { type: "private" }));
      await gives(change("users", bob, { role: "moderator" }));
      await gives(change("rooms", other, { name: "n" }), record(other));
    },
  );

  under(
    "several values, JSON, modifiers",
    `guests.id ?= @request.auth.id || options.open = true || name:lower = "x"`,
    async () => {
      await gives(change("rooms", other, { guests: [ann.id, bob.id] }), record(other));
      await gives(change("rooms", other, { guests: [ann.id] }), record(other));
      await gives(change("rooms", other, { guests: [ann.id] }));
      await gives(change("rooms", other, { options: { open: true } }), record(other));
      await gives(change("rooms", other, { options: { open: true } }));
      await gives(change("rooms", other, { name: "X" }), record(other));
    },
  );

  under("a relation of the room", `team.level = "high"`, async () => {
    await gives(make("teams", { level: "high" }));
    const team = made;
    await gives(change("rooms", other, { team: team.id }), record(other));
    await gives(change("teams", team, { motto: "m" }));
    await gives(change("teams", team, { level: "low" }), anyRoom);
    await gives(() => pb.remove("teams", team.id), record(other)); // PocketBase empties the relation
  });

  under("a relation of the account", `@request.auth.team.level = "high"`, async () => {
    await gives(make("teams", { level: "high" }));
    const team = made;
    await gives(change("users", bob, { team: team.id }), user(bob));
    await gives(change("teams", team, { motto: "m" }));
    await gives(change("teams", team, { level: "low" }), anyRoom);
    await gives(() => pb.remove("teams", team.id), user(bob));
  });

  const RULE = `room_members_via_room.user ?= @request.auth.id`;
  under("members, from the room's side", RULE, async () => {
    await gives(() => pb.remove("room_members", membership.id), member(other, bob));
    await gives(async () => (membership = await join(other, bob)), member(other, bob));
    await gives(change("room_members", membership, { last_read: FUTURE }));
  });

  under(
    "with a further condition on the membership, perUser names the affected user",
    `(${RULE}) && room_members_via_room.role ?= "owner"`,
    async () => {
      await gives(change("room_members", membership, { role: "moderator" }), member(other, bob));
      await gives(change("room_members", membership, { role: "member" }), member(other, bob));
      await gives(change("room_members", membership, { muted: true }));
    },
  );

  under(
    "another collection that points to rooms, without perUser",
    `teams_of_rooms_via_rooms.note ?= "x"`,
    async () => {
      await gives(make("teams_of_rooms", { rooms: [other.id, room.id] }), related(other), related(room));
      await gives(change("teams_of_rooms", made, { rooms: [room.id] }), related(other), related(room));
      await gives(change("teams_of_rooms", made, { note: "x" }), related(room));
      await gives(change("teams_of_rooms", made, { leads: [bob.id] }));
      await gives(() => pb.remove("teams_of_rooms", made.id), related(room));
    },
  );

  under(
    "the rule itself names the affected users",
    `teams_of_rooms_via_rooms.leads:each ?= @request.auth.id`,
    async () => {
      const data = { rooms: [other.id, room.id], leads: [ann.id, bob.id] };
      const pairs = [member(other, ann), member(other, bob), member(room, ann), member(room, bob)];
      await gives(make("teams_of_rooms", data), ...pairs);
      await gives(change("teams_of_rooms", made, { note: "n" }));
      await gives(() => pb.remove("teams_of_rooms", made.id), ...pairs);
    },
  );

  under(
    "a comparison of all members at once affects every user",
    `teams_of_rooms_via_rooms.leads = @request.auth.id`,
    async () => {
      await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), related(other));
      await gives(() => pb.remove("teams_of_rooms", made.id), related(other));
    },
  );

  under("a comparison with another field affects every user", `teams_of_rooms_via_rooms.leads ?= owner`, async () => {
    await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), related(other));
    await gives(() => pb.remove("teams_of_rooms", made.id), related(other));
  });

  under("the id of a user names the user", `teams_of_rooms_via_rooms.leads.id ?= @request.auth.id`, async () => {
    await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), member(other, bob));
    await gives(() => pb.remove("teams_of_rooms", made.id), member(other, bob));
  });

  under("another field of a user affects every user", `teams_of_rooms_via_rooms.leads.role ?= "admin"`, async () => {
    await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), related(other));
    await gives(() => pb.remove("teams_of_rooms", made.id), related(other));
  });

  under(
    "memberships of the room's parent affect only their user",
    `parent.teams_of_rooms_via_rooms.leads ?= @request.auth.id`,
    async () => {
      await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), user(bob));
      await gives(change("teams_of_rooms", made, { leads: [ann.id] }), user(bob), user(ann));
      await gives(change("teams_of_rooms", made, { rooms: [room.id] }), user(ann));
      await gives(change("teams_of_rooms", made, { note: "n" }));
      await gives(() => pb.remove("teams_of_rooms", made.id), user(ann));
    },
  );

  under(
    "memberships of the room's parent with a further condition affect every user",
    `parent.teams_of_rooms_via_rooms.leads ?= @request.auth.id && parent.teams_of_rooms_via_rooms.note ?= "x"`,
    async () => {
      await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), anyRoom);
      await gives(() => pb.remove("teams_of_rooms", made.id), anyRoom);
    },
  );

  under(
    "the owner of the room's parent",
    `parent.team.leader = @request.auth.id || parent.team.level = "open"`,
    async () => {
      await gives(make("teams", { leader: ann.id }));
      const team = made;
      await gives(change("teams", team, { leader: bob.id }), user(ann), user(bob));
      await gives(change("teams", team, { level: "open" }), anyRoom);
      await gives(change("teams", team, { motto: "m" }));
      await gives(() => pb.remove("teams", team.id));
    },
  );

  under(
    "fields of the listRule only, which decides about updates channels",
    "",
    async () => {
      await gives(change("rooms", other, { name: "listed" }), record(other));
    },
    `name != "unlisted"`,
  );

  under(
    "from the account's side, with a further condition",
    `@request.auth.teams_of_rooms_via_leads.rooms ?= id && @request.auth.teams_of_rooms_via_leads.note ?= "x"`,
    async () => {
      await gives(make("teams_of_rooms", { rooms: [other.id], leads: [bob.id] }), user(bob));
      await gives(change("teams_of_rooms", made, { leads: [ann.id] }), user(bob), user(ann));
      await gives(change("teams_of_rooms", made, { note: "x" }), user(ann));
      await gives(() => pb.remove("teams_of_rooms", made.id), user(ann));
    },
  );

  under(
    "from the account's side, by a field that is no relation",
    `@request.auth.teams_of_rooms_via_leads.note ?= id`,
    async () => {
      await gives(make("teams_of_rooms", { note: other.id, leads: [bob.id] }), user(bob));
      await gives(() => pb.remove("teams_of_rooms", made.id), user(bob));
    },
  );

  under("a relation of a record that points to the room", `teams_of_rooms_via_rooms.team.level ?= "high"`, async () => {
    await gives(make("teams", { level: "high" }));
    const team = made;
    await gives(make("teams_of_rooms", { rooms: [other.id], team: team.id }), related(other));
    await gives(change("teams", team, { level: "low" }), anyRoom);
    await gives(change("teams", team, { motto: "m" }));
    await gives(() => pb.remove("teams", team.id), related(other)); // PocketBase empties the relation
    await gives(() => pb.remove("teams_of_rooms", made.id), related(other));
  });

  under("a record two links away from the room", `messages_via_room.reactions_via_message.emoji ?= "👍"`, async () => {
    await gives(make("reactions", { message: message.id, user: ann.id, emoji: "👍" }), anyRoom);
    await gives(() => pb.remove("reactions", made.id), anyRoom);
    await gives(make("messages", { room: other.id, author: ann.id, content: "y", type: "text" }), related(other));
    await gives(change("messages", made, { content: "z" }));
    await gives(() => pb.remove("messages", made.id), related(other));
  });

  under(
    "memberships of another room, with perUser",
    `parent.room_members_via_room.user ?= @request.auth.id`,
    async () => {
      await gives(change("rooms", other, { parent: parent.id }), record(other));
      const { id } = await join(parent, bob);
      await gives(() => pb.remove("room_members", id), user(bob));
    },
  );

  under(
    "any collection",
    `@collection.bans:b.user != @request.auth.id && geoDistance(0, 0, @collection.bans.why, 1) > 1`,
    async () => {
      await gives(make("bans", { user: bob.id }), anyRoom);
      await gives(change("bans", made, { why: "because" }), anyRoom);
      await gives(change("bans", made, { user: ann.id }), anyRoom);
      await gives(() => pb.remove("bans", made.id), anyRoom);
    },
  );

  under(
    "any collection, with perUser",
    `@collection.room_members.room ?= id && @collection.room_members.user ?= @request.auth.id`,
    async () => {
      await gives(() => pb.remove("room_members", membership.id), user(bob));
      await gives(async () => (membership = await join(other, bob)), user(bob));
      await gives(change("room_members", membership, { muted: false }));
    },
  );

  under("a view: every write to its tables", `@collection.seen.level ?= "high" || team.level = "high"`, async () => {
    await gives(make("teams", { motto: "m" }), anyRoom);
    await gives(() => collection("teams", { listRule: "" }), rules);
    await gives(() => pb.remove("teams", made.id), anyRoom);
  });

  under(
    "a view of a view, beside a relation",
    `team.level = "high" || @collection.seen_again.level ?= "high"`,
    async () => {
      await gives(make("teams", { level: "low" }), anyRoom);
      await gives(change("teams", made, { motto: "m" }), anyRoom);
      await gives(() => pb.remove("teams", made.id), anyRoom);
    },
  );

  test("a collection deleted while a rule refers to it", async () => {
    const made = await pb.call("POST", "/api/collections", { name: "passing", type: "base", fields: [] }, pb.root);
    assert.equal(made.status, 200);
    await collection("rooms", { viewRule: "@collection.passing.id = id" });
    await gives(() => pb.call("DELETE", "/api/collections/passing", undefined, pb.root), rules);
    await gives(() => collection("rooms", { viewRule: rule }), rules);
  });

  under(
    "time and request fields add nothing",
    `@now > "2000" && @todayStart < @now && @request.query.a != @request.headers.b && @request.body.c:isset = false && @request.context != "x"`,
    async () => {
      await gives(change("rooms", other, { name: "later" }));
    },
  );

  under(
    "above 500 scopes of one write, one scope for everything",
    `teams_of_rooms_via_rooms.leads:each ?= @request.auth.id`,
    async () => {
      const account = (i) => ({
        email: `lead${i}@example.com`,
        password: "password-123",
        passwordConfirm: "password-123",
      });
      const leads = await Promise.all(Array.from({ length: 21 }, (_, i) => pb.create("users", account(i))));
      const halls = await Promise.all(Array.from({ length: 25 }, () => roomOf(ann)));
      const ids = (list) => list.map(({ id }) => id);
      const all = { rooms: ids(halls), leads: ids(leads) };
      const fewer = { ...all, leads: all.leads.slice(1) };
      await gives(
        make("teams_of_rooms", fewer),
        ...halls.flatMap((hall) => leads.slice(1).map((lead) => member(hall, lead))),
      );
      await gives(
        () => pb.remove("teams_of_rooms", made.id),
        ...halls.flatMap((hall) => leads.slice(1).map((lead) => member(hall, lead))),
      );
      await gives(make("teams_of_rooms", all), rules);
    },
  );
});
