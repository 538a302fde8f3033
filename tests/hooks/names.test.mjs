// Channel names from templates (pb_hooks/gateway/names.js).

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";
import { appWith, recordOf } from "./schema.mjs";

const { namesOf, without } = load("names");

const app = appWith({
  rooms: { fields: { name: "text", members: ["users"] } },
  messages: { fields: { room: "rooms", text: "text", tags: "select" } },
  reactions: { fields: { message: "messages" } },
  users: { auth: true },
});
const record = (...parts) => recordOf(app, ...parts);
/** A lookup of related records, by collection id and record id. */
const among = (...records) => ({
  find: (collection, id) => records.find((one) => one.id === id && one.collection().id === collection) ?? null,
});
const template = (path, { before = "room:", after = "", isPlain = false } = {}) => ({
  ...{ namespace: "room", before, path: path.split("."), after, isPlain },
});
const refused = [];
const names = (changed, templates, relations = among()) => {
  refused.length = 0;
  return namesOf(relations, changed, (...about) => refused.push(about), templates);
};

describe("names from templates", () => {
  const message = record("messages", "m", { room: ["r"], text: "x" });

  test("hold the value of a field, or the record's own id", () => {
    assert.deepEqual(names(message, [template("room")]), ["room:r"]);
    assert.deepEqual(names(message, [template("id")]), ["room:m"]);
    assert.deepEqual(names(message, [template("text", { isPlain: true })]), ["room:x"]);
    assert.deepEqual(names(message, [template("id", { isPlain: true })]), ["room:m"]);
    assert.deepEqual(names(message, [template("room", { after: "/pinned" })]), ["room:r/pinned"]);
  });

  test("are missing for an empty field", () => {
    const empty = record("messages", "m", { room: [], text: "" });
    assert.deepEqual(names(empty, [template("room"), template("text", { isPlain: true })]), []);
    assert.deepEqual(refused, []);
  });

  test("follow relations to other records", () => {
    const reaction = record("reactions", "e", { message: ["m"] });
    assert.deepEqual(names(reaction, [template("message.room")], among(message)), ["room:r"]);
    assert.deepEqual(names(reaction, [template("message.id")], among(message)), ["room:m"]);
    const room = record("rooms", "r", { name: "n" });
    assert.deepEqual(names(reaction, [template("message.room.name")], among(message, room)), ["room:n"]);
  });

  test("are missing behind a deleted record or a removed field", () => {
    const reaction = record("reactions", "e", { message: ["m"] });
    assert.deepEqual(names(reaction, [template("message.room")], among()), []);
    const former = record("reactions", "e", { gone: ["m"] });
    assert.deepEqual(names(former, [template("gone.room")], among(message)), []);
  });

  test("are as many as a field has values, and each occurs once", () => {
    const room = record("rooms", "r", { members: ["a", "b"] });
    assert.deepEqual(names(room, [template("members"), template("members"), template("id")]), [
      "room:a",
      "room:b",
      "room:r",
    ]);
  });
});

describe("a name that no channel can have", () => {
  const named = (text, options) =>
    names(record("messages", "m", { text }), [template("text", { isPlain: true, ...options })]);

  test("is refused with its template, and the other names stay", () => {
    const room = record("rooms", "r", { members: ["a", "b c"] });
    assert.deepEqual(names(room, [template("members")]), ["room:a"]);
    assert.deepEqual(refused, [["room:{members}", "room:b c"]]);
  });

  for (const [what, character] of Object.entries({
    ...{ "a blank": " ", "a line break": "\n", "a control character": "\u0000", "a delete character": "\u007f" },
    ...{ "a non-breaking space": "\u00a0", "a line separator": "\u2028", "an ideographic space": "\u3000" },
  })) {
    test(`has ${what}`, () => {
      assert.deepEqual(named(`a${character}b`), []);
      assert.equal(refused.length, 1);
    });
  }

  test("has more than 1,024 bytes of UTF-8", () => {
    const left = 1024 - "room:".length;
    assert.equal(named("a".repeat(left)).length, 1);
    assert.equal(named("a".repeat(left + 1)).length, 0);
    assert.equal(named(`${"ä".repeat(509)}a`).length, 1);
    assert.equal(named("ä".repeat(510)).length, 0, "1,025 bytes in 515 characters");
  });

  test("is of another kind, or of the gateway itself", () => {
    assert.deepEqual(named("x", { before: "rooms:" }), []);
    const own = { namespace: "$access", before: "$access:", path: ["id"], after: "", isPlain: true };
    assert.deepEqual(names(record("rooms", "r"), [own]), []);
  });
});

test("names without other names keep their order", () => {
  assert.deepEqual(without(["c", "a", "b"], ["a", "x"]), ["c", "b"]);
});
