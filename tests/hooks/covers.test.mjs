// The proof that a channel's subscribers may view the relayed records (pb_hooks/gateway/covers.js).

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";
import { appWith } from "./schema.mjs";

const { uncovered } = load("covers");

const LOGIN = { users: [{}], guests: false };
const GUESTS = { users: [{}], guests: true };

/** The error about messages that are relayed along `path` to the channels of rooms; undefined if the proof is found. */
function problem(guardRule, rule, { path = "room", listeners = LOGIN, own = false } = {}) {
  const app = appWith({
    users: { auth: true },
    rooms: { fields: { owner: "users", open: "bool", name: "text" }, viewRule: guardRule },
    threads: { fields: { room: "rooms", owner: "users" } },
    halls: { fields: { owner: "users", open: "bool" } },
    messages: {
      fields: { room: "rooms", rooms: ["rooms"], threads: ["threads"], hall: "halls", author: "users", text: "text" },
      viewRule: rule,
    },
  });
  const find = (name) => app.findCachedCollectionByNameOrId(name);
  return uncovered(app, find("messages"), path.split("."), own ? null : find("rooms"), listeners);
}
const isProved = (...about) => assert.equal(problem(...about), undefined);
const isUnproved = (...about) => assert.match(problem(...about), /would receive these records/);

describe("records in the channels of a guard", () => {
  const mine = "owner = @request.auth.id";

  test("are covered by the guard's own rule along the path", () => {
    isProved(mine, `room.${mine}`);
    isProved(mine, "@request.auth.id = room.owner");
    isProved(`${mine} && open = true`, `room.${mine}`);
    isProved(mine, `room.${mine}`, { path: "room.id" });
  });

  test("are not covered by a wider guard or a narrower rule", () => {
    isUnproved("open = true", `room.${mine}`);
    isUnproved(mine, `room.${mine} && text = "x"`);
    isUnproved("", `room.${mine}`);
    isUnproved(mine, `room.owner != @request.auth.id`);
  });

  test("are covered by public rules and locked guards, and not by locked rules", () => {
    isProved(mine, "");
    isProved(null, `room.${mine}`);
    assert.equal(problem(mine, null), 'the viewRule of "messages" is locked');
  });

  test("are covered case by case", () => {
    isProved(`${mine} || open = true`, `room.${mine} || room.open = true`);
    isProved(`(${mine} || open = true) && name = "x"`, `room.name = "x" && (room.open = true || room.${mine})`);
    isProved(`${mine} || open = true`, `room.${mine} || room.open = true || text = "x"`);
    const both = (...pairs) => pairs.map(([a, b]) => `(room.${a} && room.name = "${b}")`).join(" || ");
    const [yes, no] = ["open = true", "open = false"];
    const guard = `(${yes} || ${no}) && (name = "x" || name = "y")`;
    isProved(guard, both([yes, "x"], [yes, "y"], [no, "x"], [no, "y"]));
    isUnproved(guard, both([yes, "x"], [yes, "y"], [no, "x"]));
    isUnproved(`${mine} || open = true`, `room.${mine}`);
    isUnproved(`${mine} || open = true || name = "x"`, `room.${mine} || room.open = true`);
  });

  test("of a path to several guards are covered by any-of conditions only", () => {
    isProved("owner ?= @request.auth.id", "rooms.owner ?= @request.auth.id", { path: "rooms" });
    isUnproved(mine, `rooms.${mine}`, { path: "rooms" });
    isUnproved(mine, `threads.room.${mine}`, { path: "threads.room" });
    const either = (prefix) => `${prefix}owner ?= @request.auth.id || ${prefix}open ?= true`;
    isProved(either(""), either("rooms."), { path: "rooms" });
    isProved(`${mine} && @request.auth.plan = "pro"`, `@request.auth.plan = "pro"`, { path: "rooms" });
  });

  test("of a path to another collection, or to a text, are not covered by rules that look alike", () => {
    isUnproved(mine, `hall.${mine}`, { path: "hall" });
    isUnproved(mine, `text.${mine}`, { path: "text" });
  });

  test("are not covered if a rule cannot be parsed", () => {
    isUnproved("owner =", `room.${mine}`);
    isUnproved(mine, "room.owner =");
  });

  test("are covered by a rule about the login unless guests are admitted", () => {
    isProved("", `@request.auth.id != ""`);
    isUnproved("", `@request.auth.id != ""`, { listeners: GUESTS });
    isProved("", `@request.auth.id != ""`, { listeners: { users: [], guests: false } });
  });

  test("are covered by a rule about the ban that all accounts share", () => {
    const ban = "@request.auth.banned <= @now";
    isProved("", ban, { listeners: { users: [{ bannedUntil: "banned" }, { bannedUntil: "banned" }], guests: false } });
    isUnproved("", ban, { listeners: { users: [{ bannedUntil: "banned" }, { bannedUntil: "out" }], guests: false } });
    isUnproved("", ban);
  });
});

describe("records in the personal channel of a user", () => {
  const own = { own: true, path: "author" };

  test("are covered if the rule asks for the user in the template's field", () => {
    isProved(null, "author = @request.auth.id", own);
    isProved(null, "author ?= @request.auth.id", own);
    isProved(null, "author.id = @request.auth.id", own);
    isProved(null, "room.owner = @request.auth.id", { own: true, path: "room.owner" });
    isProved(null, "threads.owner ?= @request.auth.id", { own: true, path: "threads.owner" });
    assert.notEqual(problem(null, "threads.owner = @request.auth.id", { own: true, path: "threads.owner" }), undefined);
  });

  test("are not covered by another field", () => {
    assert.match(problem(null, "room.owner = @request.auth.id", own), /^the owner of the channel would receive/);
  });

  test("belong to a login even if guests are admitted", () => {
    isProved(null, `@request.auth.id != ""`, { ...own, listeners: GUESTS });
  });
});
