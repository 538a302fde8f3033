// The parser of PocketBase's rules (pb_hooks/gateway/rule.js).

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";

const { operands, substitute, withoutComments, tree } = load("rule");

describe("operands", () => {
  const table = [
    ["", []],
    ["a = 1", [{ name: "a" }]],
    ["-1.5<=a.b:length", [{ name: "a.b:length" }]],
    [
      "a ?= b",
      [
        { name: "a", sign: "?=", other: "b" },
        { name: "b", sign: "?=", other: "a" },
      ],
    ],
    [
      "(a!=b)&&(c='d')||e~\"f\"",
      [{ name: "a", sign: "!=", other: "b" }, { name: "b", sign: "!=", other: "a" }, { name: "c" }, { name: "e" }],
    ],
    ["a = 'it\\'s b' // c = d 'e\n && f = \"\\\"g\"", [{ name: "a" }, { name: "f" }]],
    ["f(a, 'b)', @c.d) > e", [{ name: "a" }, { name: "@c.d" }, { name: "e" }]],
    ["e > f(a)", [{ name: "e" }, { name: "a" }]],
    ["a = '' && b ?!~ ''", [{ name: "a" }, { name: "b" }]],
    ["a = 'http://x' && b = 1", [{ name: "a" }, { name: "b" }]],
  ];
  for (const [text, expected] of table) {
    test(JSON.stringify(text), () => assert.deepEqual(operands(text), expected));
  }

  test("include modifiers, aliases and collections", () => {
    const found = operands("tags:each ~ 'x' && @collection.bans:b.user ?= id").map(({ name }) => name);
    assert.deepEqual(found, ["tags:each", "@collection.bans:b.user", "id"]);
  });

  test("of different conditions do not belong together", () => {
    assert.deepEqual(operands("(a = 1) && b = c")[1], { name: "b", sign: "=", other: "c" });
    assert.deepEqual(operands("a = 1 && b")[1], { name: "b" });
  });
});

describe("substitute", () => {
  test("replaces whole names only, and outside texts", () => {
    const replacement = (name) => (name === "a" ? "{:x}" : null);
    assert.equal(substitute(`a = 1 && ab = "a" && b.a = a`, replacement), `{:x} = 1 && ab = "a" && b.a = {:x}`);
  });
});

describe("withoutComments", () => {
  test("removes comments, and no text that looks like one", () => {
    assert.equal(withoutComments(`a = "//b" // c`), `a = "//b" `);
    assert.equal(withoutComments("a = 1 // b\n&& c = 2"), "a = 1 \n&& c = 2");
  });
});

describe("tree", () => {
  const is = (name, value = "1") => ({ left: { name }, sign: "=", right: { value } });

  test("binds && closer than ||", () => {
    assert.deepEqual(tree("a = 1 || b = 1 && c = 1"), { or: [is("a"), { and: [is("b"), is("c")] }] });
    assert.deepEqual(tree("a = 1 && b = 1 || c = 1"), { or: [{ and: [is("a"), is("b")] }, is("c")] });
  });

  test("follows brackets", () => {
    assert.deepEqual(tree("(a = 1 || b = 1) && c = 1"), { and: [{ or: [is("a"), is("b")] }, is("c")] });
    assert.deepEqual(tree("((a = 1))"), is("a"));
  });

  test("writes texts in one way, and has true, false and null as values", () => {
    assert.deepEqual(tree("a = 'x'"), is("a", '"x"'));
    assert.deepEqual(tree('a = "x"'), is("a", '"x"'));
    for (const value of ["true", "False", "null"]) assert.deepEqual(tree(`a = ${value}`), is("a", value));
  });

  test("keeps a function call as text, to its own closing bracket", () => {
    const call = { call: "geoDistance(lon,f(lat),1)" };
    assert.deepEqual(tree("geoDistance(lon, f(lat), 1) < 5 && a = 1"), {
      and: [{ left: call, sign: "<", right: { value: "5" } }, is("a")],
    });
  });

  test("has the names after the renaming, functions included", () => {
    const rename = (name) => `room.${name}`;
    assert.deepEqual(tree("a = 1", rename), is("room.a"));
    assert.deepEqual(tree("f(a) = 1", rename).left, { call: "f(room.a)" });
    assert.deepEqual(tree("a = true", rename), is("room.a", "true"));
  });

  test("of an empty rule is always true", () => {
    for (const rule of ["", " ", "// nothing"]) assert.deepEqual(tree(rule), { and: [] });
  });

  for (const rule of [
    "a",
    "a =",
    "= a",
    "a = 1 &&",
    "(a = 1",
    "a = 1)",
    "a = 1 b = 2",
    "f(a = 1",
    "a = (b = 1)",
    "a && b",
  ]) {
    test(`is null for ${rule}`, () => assert.equal(tree(rule), null));
  }
});
