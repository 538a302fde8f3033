// Access triggers from rules (pb_hooks/gateway/dependencies.js).

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";
import { appWith } from "./schema.mjs";

const { derive, rulesOf, unanswerable } = load("dependencies");

const collections = (viewRule, more) => ({
  users: { auth: true, fields: { plan: "text", banned: "date" } },
  staff: { auth: true },
  rooms: {
    fields: { open: "bool", owner: "users", workspace: "workspaces", guests: ["users"], lost: "gone" },
    viewRule,
  },
  members: { fields: { room: "rooms", user: "users", role: "text" } },
  workspaces: { fields: { name: "text", boss: "users" } },
  memberships: { fields: { workspace: "workspaces", member: "users" } },
  bans: { fields: { user: "users" } },
  ...more,
});
const USERS = { id: "users_id", name: "users", key: "", bannedUntil: "banned" };

/** The triggers of each collection; without the triggers common to every guard and account, unless `all`. */
function triggersOf(viewRule, { users = [USERS], perUser = {}, updates = {}, more = {}, all = false } = {}) {
  const channels = { room: { guards: [{ id: "rooms_id", key: "" }], perUser } };
  const { triggers, collections: deciding } = derive(appWith(collections(viewRule, more)), {
    users,
    channels,
    updates,
  });
  const isOwn = ({ cause, user, fields }) => cause === "deleted" || (user === "id" && fields[0] === "tokenKey");
  const kept = triggers.map(([name, list]) => [name, list.filter((trigger) => all || !isOwn(trigger))]);
  return { ...Object.fromEntries(kept.filter(([, list]) => list.length > 0)), deciding };
}

/** The only trigger of a collection. */
function only(viewRule, collection, options) {
  const { [collection]: list = [] } = triggersOf(viewRule, options);
  assert.equal(list.length, 1, JSON.stringify(list));
  return { ...list[0], fields: list[0].fields && [...new Set(list[0].fields)].sort() };
}

const LIVES = { created: true, deleted: true };
const OF_ROOM = { namespace: "room", prefix: "room:" };

describe("every guard and account", () => {
  test("matters by its deletion, and an account by its token key and ban", () => {
    assert.deepEqual(triggersOf("", { all: true }), {
      users: [
        { fields: ["tokenKey", "banned"], deleted: true, cause: "user", user: "id", keys: [""], namespace: undefined },
      ],
      rooms: [{ fields: [], deleted: true, cause: "deleted", channel: "id", ...OF_ROOM }],
      deciding: ["users_id", "rooms_id"],
    });
  });
});

describe("a field", () => {
  test("of the guarded record concerns its channel", () => {
    assert.deepEqual(only("open = true && owner = @request.auth.id", "rooms"), {
      ...{ fields: ["open", "owner"], cause: "record", channel: "id", ...OF_ROOM },
    });
  });

  test("of the account concerns this user", () => {
    const { users } = triggersOf(`@request.auth.plan = "pro"`, { all: true });
    assert.deepEqual(users[0].fields, ["tokenKey", "banned", "plan"]);
    assert.equal(users.length, 1);
  });

  test("of an account concerns the users of its auth collection", () => {
    const users = [USERS, { id: "staff_id", name: "staff", key: "staff/" }];
    const found = triggersOf("@request.auth.plan = name", {
      users,
      all: true,
      more: { staff: { fields: { plan: "text" } } },
    });
    for (const [collection, key] of [
      ["users", ""],
      ["staff", "staff/"],
    ]) {
      assert.deepEqual(
        found[collection].map(({ fields, keys, deleted }) => [fields.at(-1), keys, deleted]),
        [["plan", [key], true]],
      );
    }
  });

  test("of a related record that is compared with the user concerns this user", () => {
    assert.deepEqual(only("workspace.boss = @request.auth.id", "workspaces"), {
      ...{
        fields: ["boss"],
        created: false,
        deleted: false,
        cause: "user",
        user: "boss",
        keys: [""],
        namespace: undefined,
      },
    });
  });

  test("of a related record in another comparison concerns all users", () => {
    assert.deepEqual(only(`workspace.name = "x"`, "workspaces"), {
      ...{ namespace: "room", fields: ["name"], created: false, deleted: false, cause: "related" },
    });
  });

  test("with the record's id concerns nobody, since an id never changes", () => {
    assert.deepEqual(triggersOf(`id != "x"`), { deciding: ["users_id", "rooms_id"] });
  });

  test("in another use concerns all users", () => {
    for (const rule of [`workspace.boss:length = 1`, `workspace.boss:lower = @request.auth.id`]) {
      assert.equal(only(rule, "workspaces").cause, "related", rule);
    }
    assert.equal(only("members_via_room.user:length ?= @request.auth.id", "members").cause, "related");
    assert.equal(only("members_via_room.user:each ?= @request.auth.id", "members").cause, "member");
  });

  test("with the id of a related record is the relation itself", () => {
    const { deciding, rooms } = triggersOf(`workspace.id != "x"`);
    assert.deepEqual([deciding, rooms[0].fields], [["users_id", "rooms_id"], ["workspace"]]);
  });

  test("behind a relation to a deleted collection concerns nobody", () => {
    assert.deepEqual(triggersOf(`lost.name = "x"`).deciding, ["users_id", "rooms_id"]);
  });

  test("that does not exist concerns nobody", () => {
    assert.deepEqual(triggersOf("gone = 1 && @collection.gone.x = 1 && gone_via_room.x = 1").deciding, [
      "users_id",
      "rooms_id",
    ]);
  });
});

describe("a record that points to the guarded record", () => {
  const one = { ...LIVES, cause: "member", channel: "room", user: "user", keys: [""], ...OF_ROOM };
  const everyone = { ...LIVES, cause: "related", channel: "room", ...OF_ROOM };

  test("concerns its user in its channel if the rule asks for any such record", () => {
    assert.deepEqual(only("members_via_room.user ?= @request.auth.id", "members"), {
      fields: ["room", "user"],
      ...one,
    });
    assert.deepEqual(only("@request.auth.id ?= members_via_room.user", "members"), {
      fields: ["room", "user"],
      ...one,
    });
    assert.deepEqual(only("members_via_room.user.id ?= @request.auth.id", "members"), {
      fields: ["room", "user"],
      ...one,
    });
  });

  test("concerns every user if the rule asks for all such records", () => {
    assert.deepEqual(only("members_via_room.user = @request.auth.id", "members"), {
      fields: ["room", "user"],
      ...everyone,
    });
    assert.deepEqual(only("members_via_room.user ?!= @request.auth.id", "members"), {
      fields: ["room", "user"],
      ...everyone,
    });
  });

  test("concerns every user if the rule also reads another field", () => {
    const rule = `members_via_room.user ?= @request.auth.id && members_via_room.role ?= "admin"`;
    assert.deepEqual(only(rule, "members"), { fields: ["role", "room", "user"], ...everyone });
  });

  test("concerns every user if the rule also asks for such a record as a whole, or for an unknown field", () => {
    const mine = "members_via_room.user ?= @request.auth.id";
    assert.equal(only(`${mine} && members_via_room != ""`, "members").cause, "related");
    assert.equal(only(`${mine} && members_via_room.gone = 1`, "members").cause, "related");
  });

  test("concerns the user named by perUser, whatever the rule reads", () => {
    const perUser = { members: "user" };
    assert.deepEqual(only(`members_via_room.role ?= "admin"`, "members", { perUser }), {
      ...{ fields: ["role", "room", "user"], ...one },
    });
  });

  test("concerns its user in its channel by a rule from the account's side too", () => {
    assert.deepEqual(only("@request.auth.members_via_user.room ?= id", "members"), {
      fields: ["room", "user"],
      ...one,
    });
  });

  test("concerns the users of one auth collection by a rule from the account's side", () => {
    const users = [
      { id: "staff_id", name: "staff", key: "" },
      { ...USERS, key: "users/" },
    ];
    assert.deepEqual(only("@request.auth.members_via_user.room ?= id", "members", { users }).keys, ["users/"]);
  });

  test("may belong to a user of any auth collection, since ids may be equal", () => {
    const users = [USERS, { id: "staff_id", name: "staff", key: "staff/" }];
    assert.deepEqual(only("members_via_room.user ?= @request.auth.id", "members", { users }).keys, ["", "staff/"]);
  });
});

describe("another record", () => {
  test("that links the user to a parent concerns this user in all channels", () => {
    assert.deepEqual(only("workspace.memberships_via_workspace.member ?= @request.auth.id", "memberships"), {
      ...{ fields: ["member", "workspace"], ...LIVES, cause: "user", user: "member", keys: [""], namespace: undefined },
    });
  });

  test("concerns the user named by perUser, whatever the rule reads", () => {
    const perUser = { memberships: "member" };
    assert.deepEqual(
      only("workspace.memberships_via_workspace.member ?!= @request.auth.id", "memberships", { perUser }),
      {
        ...{
          fields: ["member", "workspace"],
          ...LIVES,
          cause: "user",
          user: "member",
          keys: [""],
          namespace: undefined,
        },
      },
    );
  });

  test("decides about access together with the collections on its path", () => {
    const { deciding } = triggersOf("workspace.memberships_via_workspace.member ?= @request.auth.id");
    assert.deepEqual(deciding, ["users_id", "rooms_id", "workspaces_id", "memberships_id"]);
  });

  test("of @collection concerns every channel of the kind", () => {
    assert.deepEqual(only(`@collection.bans.user ?!= @request.auth.id`, "bans"), {
      ...{ namespace: "room", fields: ["user"], ...LIVES, cause: "related" },
    });
  });

  test("in the query of a view matters in every way", () => {
    const more = {
      admins: { fields: { user: "users" }, viewQuery: "SELECT id, user FROM helpers" },
      helpers: { fields: { user: "users" }, viewQuery: "SELECT m.id, m.user FROM members m" },
    };
    assert.deepEqual(only("@collection.admins.user ?= @request.auth.id", "members", { more }), {
      ...{ fields: null, ...LIVES, cause: "related", namespace: undefined },
    });
  });
});

test("two uses with the same outcome are one trigger for the writes of both", () => {
  const more = { overview: { fields: { n: "number" }, viewQuery: "SELECT id, 1 n FROM workspaces" } };
  for (const rule of [
    "workspace.name = 1 && @collection.overview.n = 1",
    "@collection.overview.n = 1 && workspace.name = 1",
  ]) {
    assert.deepEqual(only(rule, "workspaces", { more }), {
      fields: null,
      ...LIVES,
      cause: "related",
      namespace: "room",
    });
  }
  const { rooms } = triggersOf(`open = true || owner = @request.auth.id`);
  assert.deepEqual(
    rooms.map(({ fields }) => fields),
    [["open", "owner"]],
  );
});

describe("the rules of a guard", () => {
  const guard = { viewRule: "a = 1", listRule: "b = 1" };

  test("include the listRule for updates channels only", () => {
    assert.deepEqual(rulesOf(guard, false), ["a = 1"]);
    assert.deepEqual(rulesOf(guard, true), ["a = 1", "b = 1"]);
  });

  for (const operand of ["@request.headers.x", "@request.query.x", "@request.body.x", "@request.body.x:isset"]) {
    test(`cannot be answered with ${operand}`, () => {
      assert.match(
        unanswerable([null, `a = 1 && ${operand} = 1`]),
        /^the rule "a = 1 && @request\..* looks at @request\./,
      );
    });
  }

  test("can be answered with everything else", () => {
    assert.equal(unanswerable([null, "", `@request.auth.id = a && @request.context = "realtime"`]), undefined);
    assert.equal(unanswerable([`a = "@request.query.x"`]), undefined);
  });
});
