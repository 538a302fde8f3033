// Rules as filters for one user: filter.js, and the conditions on a parent's links in parents.js.

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";
import { appWith, recordOf } from "./schema.mjs";

const { filterOfUser } = load("filter");
const { conditionOf } = load("parents");

const app = appWith({
  users: {
    auth: true,
    fields: { plan: "text", age: "number", tags: "json", foes: ["users"], role: "select", roles: ["select"] },
  },
  boards: { fields: { owner: "users", workspace: "workspaces", guests: ["users"], shared: ["workspaces"] } },
  workspaces: { fields: { name: "text" } },
  memberships: { fields: { workspace: "workspaces", member: "users", helpers: ["users"] } },
});
const ann = recordOf(app, "users", "ann", { plan: "pro", age: 41, tags: [1], foes: [], role: "admin" });

describe("the filter of a user", () => {
  test("has the account's fields as parameters", () => {
    assert.deepEqual(
      filterOfUser(`owner = @request.auth.id && @request.auth.plan = "pro" && n < @request.auth.age`, ann),
      {
        text: `owner = {:ofid} && {:ofplan} = "pro" && n < {:ofage}`,
        values: { ofid: "ann", ofplan: "pro", ofage: 41 },
      },
    );
  });

  test("takes a choice of one value as a text", () => {
    assert.deepEqual(filterOfUser("a = @request.auth.role", ann).values, { ofrole: "admin" });
  });

  test("leaves texts alone", () => {
    assert.equal(filterOfUser(`a = "@request.auth.id"`, ann).text, `a = "@request.auth.id"`);
  });

  for (const operand of [
    "@request.auth.foes",
    "@request.auth.tags",
    "@request.auth.roles",
    "@request.auth.memberships_via_member.workspace",
    "@request.auth.gone",
    "@request.query.x",
    "@request.headers.y",
    "@request.context",
  ]) {
    test(`cannot express ${operand}`, () => assert.equal(filterOfUser(`${operand} = id`, ann), null));
  }

  test("cannot express a guest's account", () => {
    assert.equal(filterOfUser("owner = @request.auth.id", null), null);
    assert.deepEqual(filterOfUser("open = true", null), { text: "open = true", values: {} });
  });

  test("takes another text for a name where one is given", () => {
    const replaced = (name) => (name === "@request.query.x" ? "id" : null);
    assert.deepEqual(filterOfUser("a = @request.query.x && b = @request.auth.plan", ann, replaced), {
      text: "a = id && b = {:ofplan}",
      values: { ofplan: "pro" },
    });
  });
});

describe("the condition on a parent's links", () => {
  const boards = app.findCachedCollectionByNameOrId("boards");
  const link = "workspace.memberships_via_workspace.member ?= @request.auth.id";
  const condition = (rule) => conditionOf(app, boards, rule);

  test("is found with its collections and fields, and can be replaced", () => {
    const { replaced, ...found } = condition(`a = 1 || ${link}`);
    assert.deepEqual(found, {
      ...{ field: "workspace", parent: "workspaces_id", links: "memberships", back: "workspace", user: "member" },
    });
    assert.equal(replaced("1 = 2"), "a = 1 || 1 = 2");
  });

  test("may be repeated, and each occurrence is replaced", () => {
    assert.equal(condition(`(${link} && a = 1) || ${link}`).replaced("x"), "(x && a = 1) || x");
  });

  for (const [what, rule] of [
    ["another sign", link.replace("?=", "=")],
    ["another comparison of the links beside it", `${link} && workspace.memberships_via_workspace.role ?= "x"`],
    ["the sides exchanged in another place", `${link} || @request.auth.id ?= ${link.split(" ")[0]}`],
    ["a comparison with another field of the account", link.replace("auth.id", "auth.plan")],
    ["a parent field with several values", link.replace("workspace.memberships", "shared.memberships")],
    ["a user field with several values", link.replace(".member ", ".helpers ")],
    ["a link to another collection", link.replace("_via_workspace", "_via_member")],
    ["a collection that is gone", link.replace("memberships", "gone")],
    ["a longer path", `board.${link}`],
  ]) {
    test(`is not used with ${what}`, () => assert.equal(condition(rule), null));
  }
});
