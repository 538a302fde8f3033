// Several auth collections, superusers and guests in the hooks' answers: users by KEY, and records of two collections
// with the same id kept apart.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { ACCOUNTS, PASSWORD, PocketBase } from "./harness.mjs";

const FUTURE = "2100-01-01 00:00:00.000Z";
const SAME = "sameid000000001";

let pb, ann, tom, root;
const ids = {};

/** A new record of an auth collection, logged in. */
async function account(collection, name, fields = {}) {
  const email = `${name}@example.com`;
  await pb.create(collection, { email, password: PASSWORD, passwordConfirm: PASSWORD, ...fields });
  return pb.login(email, PASSWORD, collection);
}

/** Changes a record's id with SQL, since PocketBase refuses to save an id of another auth collection. */
function rename(collection, from, to) {
  const sql = `import sqlite3,sys
db = sqlite3.connect(sys.argv[1], timeout=30)
db.execute("UPDATE " + sys.argv[2] + " SET id=? WHERE id=?", (sys.argv[4], sys.argv[3]))
db.commit()`;
  execFileSync("python3", ["-c", sql, path.join(pb.folder, "pb_data/data.db"), collection, from, to]);
}

const ask = async (...users) => (await pb.gateway("POST", "/api/gateway/keys", { users })).body.keys;
const authorize = async (...checks) => {
  const body = { checks: checks.map(([user, channel]) => ({ user, channel })) };
  return (await pb.gateway("POST", "/api/gateway/authorize", body)).body.results;
};

/** The scopes in the outbox rows of `action`. */
async function scopes(action) {
  const { last } = await pb.events();
  await action();
  return (await pb.events(last)).events.flatMap((row) => row.access ?? []);
}

/** The claims of a token, unverified. */
const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

before(async () => {
  pb = await PocketBase.start({ application: ACCOUNTS });
  ann = await account("members", "ann", { id: SAME });
  rename("staff", (await account("staff", "tom")).id, SAME);
  tom = await pb.login("tom@example.com", PASSWORD, "staff");
  root = pb.root;
  for (const { name, id } of (await pb.call("GET", "/api/collections?perPage=500", undefined, root)).body.items)
    ids[name] = id;
});

after(() => pb?.stop());

describe("keys", () => {
  test("name each user by collection and id, and sign only that record's tokens", async () => {
    const [member, staff, superuser] = await ask(
      `${ids.members}/${SAME}`,
      `${ids.staff}/${SAME}`,
      `${ids._superusers}/${root.id}`,
    );
    assert.deepEqual([member.user, staff.user, superuser.user], [SAME, `staff/${SAME}`, `_superusers/${root.id}`]);
    assert.equal(new Set([member.key, staff.key, superuser.key]).size, 3);
    for (const [{ token }, { key }] of [
      [ann, member],
      [tom, staff],
      [root, superuser],
    ]) {
      const [head, body, signature] = token.split(".");
      assert.equal(createHmac("sha256", key).update(`${head}.${body}`).digest("base64url"), signature);
    }
    assert.equal(claims(tom.token).collectionId, ids.staff);
  });

  test("of unconfigured collections, missing records and malformed ids: none", async () => {
    const names = [
      "_externalAuths/x",
      `${ids.rooms}/${SAME}`,
      `${ids.staff}/nobody`,
      `staff/${SAME}`,
      `members/${SAME}`,
      SAME,
      "/",
      `/${SAME}`,
      `${ids.staff}/`,
    ];
    assert.deepEqual(
      await ask(...names),
      names.map(() => null),
    );
  });

  test("come with the collection's bans and the KEYs of blocked users", async () => {
    const mia = await account("members", "mia", { banned_until: FUTURE, muted_until: FUTURE, blocked: [ann.id] });
    const sam = await account("staff", "sam", { suspended_until: FUTURE });
    const [member, staff] = await ask(`${ids.members}/${mia.id}`, `${ids.staff}/${sam.id}`);
    const until = Date.parse(FUTURE);
    assert.deepEqual(
      { ...member, key: 0 },
      { user: mia.id, key: 0, bannedUntil: until, mutedUntil: until, blocked: [SAME] },
    );
    assert.deepEqual(
      { ...staff, key: 0 },
      { user: `staff/${sam.id}`, key: 0, bannedUntil: until, mutedUntil: 0, blocked: [] },
    );
  });

  test("of guests: an entry without a signing key", async () => {
    assert.deepEqual(await ask(""), [{ user: "", bannedUntil: 0, mutedUntil: 0, blocked: [] }]);
  });

  test("an id that looks like another collection's KEY is refused by every route", async () => {
    const eve = await account("members", "eve");
    const fake = `staff/${SAME}`;
    rename("members", eve.id, fake);
    assert.deepEqual(await ask(`${ids.members}/${fake}`), [null]);
    // The KEY belongs to the staff record.
    assert.deepEqual(await authorize([fake, `crew:${SAME}`], [fake, `user:${SAME}`], [fake, `user:${fake}`]), [
      "allowed",
      "denied",
      "denied",
    ]);
    assert.deepEqual(await authorize([`staff/${fake}`, `crew:${SAME}`], [`staff/a/b`, `crew:a/b`]), [
      "denied",
      "denied",
    ]);
  });
});

describe("authorize", () => {
  let open, closed, vault;

  before(async () => {
    open = await pb.create("rooms", { visibility: "public" });
    closed = await pb.create("rooms", { visibility: "members" });
    vault = await pb.create("vaults", { name: "gold" });
  });

  const who = () => [SAME, `staff/${SAME}`, `_superusers/${root.id}`, ""];
  const each = async (channel) => authorize(...who().map((user) => [user, channel]));

  test("members, staff, superusers and guests by PocketBase's rules", async () => {
    assert.deepEqual(await each(`room:${open.id}`), ["allowed", "allowed", "allowed", "allowed"]);
    assert.deepEqual(await each(`room:${closed.id}`), ["allowed", "denied", "allowed", "denied"]);
    assert.deepEqual(await each(`vault:${vault.id}`), ["denied", "denied", "allowed", "denied"]);
    assert.deepEqual(await each("room-updates"), ["allowed", "allowed", "allowed", "allowed"]);
    assert.deepEqual(await each("room:nowhere"), ["denied", "denied", "denied", "denied"]);
  });

  test("personal channels belong to records of one collection", async () => {
    assert.deepEqual(await each(`user:${SAME}`), ["allowed", "denied", "denied", "denied"]);
    assert.deepEqual(await each(`crew:${SAME}`), ["denied", "allowed", "denied", "denied"]);
    assert.deepEqual(await each(`user:staff/${SAME}`), ["denied", "denied", "denied", "denied"]);
    assert.deepEqual(await each("user:"), ["denied", "denied", "denied", "denied"]);
    assert.deepEqual(await each(`user:${root.id}`), ["denied", "denied", "denied", "denied"]);
  });

  test("statuses by the rules of the user's own collection; superusers and guests have no status", async () => {
    assert.deepEqual(await each(`status:${SAME}`), ["allowed", "allowed", "allowed", "denied"]);
    assert.deepEqual(await each(`status:staff/${SAME}`), ["allowed", "allowed", "allowed", "allowed"]);
    assert.deepEqual(await each(`status:_superusers/${root.id}`), ["denied", "denied", "denied", "denied"]);
    assert.deepEqual(await each("status:"), ["denied", "denied", "denied", "denied"]);
  });

  test("unknown users are denied", async () => {
    const nobody = ["nobody", "staff/nobody", "_superusers/nobody", `crew/${SAME}`, "staff/", "/"];
    assert.deepEqual(
      await authorize(...nobody.map((user) => [user, `room:${open.id}`])),
      nobody.map(() => "denied"),
    );
  });
});

describe("users named by access changes", () => {
  test("each kind of account by its KEY", async () => {
    const [joe, pat] = [await account("members", "joe"), await account("staff", "pat")];
    assert.deepEqual(await scopes(() => pb.update("members", joe.id, { banned_until: FUTURE })), [
      { cause: "user", user: joe.id },
    ]);
    assert.deepEqual(await scopes(() => pb.update("staff", pat.id, { suspended_until: FUTURE })), [
      { cause: "user", user: `staff/${pat.id}` },
    ]);
    assert.deepEqual(await scopes(() => pb.update("staff", pat.id, { emailVisibility: true })), []);
    const admin = await account("_superusers", "admin");
    const password = { password: "password-456", passwordConfirm: "password-456" };
    assert.deepEqual(await scopes(() => pb.update("_superusers", admin.id, password)), [
      { cause: "user", user: `_superusers/${admin.id}` },
    ]);
    assert.deepEqual(await scopes(() => pb.remove("_superusers", admin.id)), [
      { cause: "user", user: `_superusers/${admin.id}` },
    ]);
    const sue = await account("staff", "sue");
    const gone = await scopes(() => pb.remove("staff", sue.id));
    assert.deepEqual(gone, [
      { cause: "user", user: `staff/${sue.id}` },
      { cause: "deleted", channel: `status:staff/${sue.id}` },
    ]);
  });

  test("where a rule compares ids, the users of that id in all collections", async () => {
    const room = await pb.create("rooms", { visibility: "invited" });
    const channel = `room:${room.id}`;
    const member = (user) => ({ cause: "member", channel, user });
    const all = [member(SAME), member(`staff/${SAME}`), member(`_superusers/${SAME}`)];
    let invitation;
    assert.deepEqual(
      await scopes(async () => (invitation = await pb.create("invitations", { room: room.id, member: SAME }))),
      all,
    );
    // PocketBase itself lets both in.
    assert.deepEqual(await authorize([SAME, channel], [`staff/${SAME}`, channel]), ["allowed", "allowed"]);
    assert.deepEqual(await scopes(() => pb.remove("invitations", invitation.id)), all);
    assert.deepEqual(await authorize([SAME, channel], [`staff/${SAME}`, channel]), ["denied", "denied"]);
  });

  test("a changed config causes a recheck of every user at the next start, an unchanged config does not", async () => {
    const config = path.join(pb.folder, "pb_hooks/gateway.config.js");
    // The file changes while PocketBase is down: a restart for a changed file could swallow the signal to end.
    const restart = async (edit = (text) => text) => {
      const { last } = await pb.events();
      await pb.stop({ keep: true });
      writeFileSync(config, edit(readFileSync(config, "utf8")));
      pb = await PocketBase.start({ folder: pb.folder });
      return (await pb.events(last)).events.flatMap((row) => row.access ?? []).filter(({ cause }) => cause === "rules");
    };
    assert.deepEqual(await restart(), []);
    assert.deepEqual(await restart((text) => text.replace("guests: true", "guests: false")), [{ cause: "rules" }]);
    assert.deepEqual(await ask("", `${ids.staff}/${SAME}`).then(([guest, staff]) => [guest, staff.user]), [
      null,
      `staff/${SAME}`,
    ]);
    const room = await pb.create("rooms", { visibility: "public" });
    assert.deepEqual(await authorize(["", `room:${room.id}`], ["", "room-updates"]), ["denied", "denied"]);
    const withoutStaff = (text) =>
      text.replace(/\{ collection: "staff".*\},/, "").replace(/crew: .*|status: .*|staff: \["crew.*/g, "");
    assert.deepEqual(await restart(withoutStaff), [{ cause: "rules" }]);
    assert.deepEqual(await ask(`${ids.staff}/${SAME}`), [null]);
  });
});
