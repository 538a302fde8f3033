// Depth of a record's JSON (nesting.js), and comparison of field values (fields.js).

import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./modules.mjs";
import { appWith, recordOf } from "./schema.mjs";

const { isTooDeep } = load("nesting");
const { touched } = load("fields");

const lists = (levels) => "[".repeat(levels) + "]".repeat(levels);
const objects = (levels) => `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`;

test("128 levels of JSON are accepted, and one more is not", () => {
  for (const nested of [lists, objects]) {
    assert.equal(isTooDeep(nested(128)), false);
    assert.equal(isTooDeep(nested(129)), true);
  }
  assert.equal(isTooDeep(`[${lists(127)},{}]`), false, "with more brackets than levels");
  assert.equal(isTooDeep(`${'{"a":'.repeat(64)}${lists(65)}${"}".repeat(64)}`), true, "lists in objects");
});

test("brackets side by side or in texts do not nest", () => {
  assert.equal(isTooDeep(`[${Array(200).fill("[{}]").join(",")}]`), false);
  assert.equal(isTooDeep(JSON.stringify({ text: "[{".repeat(200) })), false);
  assert.equal(isTooDeep(JSON.stringify({ text: `"${"[".repeat(200)}` })), false, "behind an escaped quotation mark");
  assert.equal(isTooDeep(`{"text":"\\\\","list":${lists(128)}}`), true, "behind an escaped backslash");
});

test("an update touches a field if its JSON has changed", () => {
  const app = appWith({ rooms: { fields: { name: "text" } } });
  const room = (name) => recordOf(app, "rooms", "r", { name });
  const changed = (before, now) => touched(room(now), room(before), "name");
  assert.equal(changed("a", "a"), false);
  assert.equal(changed("a", "b"), true);
  assert.equal(changed(["a", "b"], ["a", "b"]), false);
  assert.equal(changed(["a", "b"], ["b", "a"]), true, "the order of a list");
  assert.equal(changed({ a: 1 }, { a: 2 }), true, "objects, which have one text in JavaScript");
  assert.equal(changed(1, "1"), true);
});
