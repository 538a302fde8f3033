// The gateway's files beside an existing application with its own hooks, migrations, users and data. As in the
// README, two folders are copied and one file is edited.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { GATEWAY, PASSWORD, PocketBase, install, until } from "./harness.mjs";

const SCHEMA = `migrate((app) => {
  const users = app.findCollectionByNameOrId("users");
  Object.assign(users, { createRule: null, viewRule: "id = @request.auth.id", listRule: null });
  app.save(users);
  const rule = "shop.owner = @request.auth.id";
  const text = { type: "text", name: "name" };
  const shops = new Collection({ type: "base", name: "shops", fields: [text, { type: "relation", name: "owner", collectionId: users.id, maxSelect: 1 }] });
  Object.assign(shops, { listRule: "owner = @request.auth.id", viewRule: "owner = @request.auth.id" });
  app.save(shops);
  const orders = new Collection({ type: "base", name: "orders", fields: [text, { type: "relation", name: "shop", collectionId: shops.id, maxSelect: 1 }] });
  Object.assign(orders, { listRule: rule, viewRule: rule });
  app.save(orders);
  const log = new Collection({ type: "base", name: "log", fields: [text] });
  app.save(log);
});`;

const HOOK = `
onRecordCreate((e) => { e.record.set("name", e.record.getString("name").toUpperCase()); e.next(); }, "orders");
onRecordAfterCreateSuccess((e) => {
  e.next();
  $app.save(new Record($app.findCollectionByNameOrId("log"), { name: "order " + e.record.id }));
}, "orders");
routerAdd("GET", "/shop/hello", (e) => e.json(200, { hello: "shop" }));
`;

/** An application without the gateway. */
function shop(folder) {
  mkdirSync(path.join(folder, "pb_hooks"), { recursive: true });
  mkdirSync(path.join(folder, "pb_migrations"), { recursive: true });
  writeFileSync(path.join(folder, "pb_hooks/shop.pb.js"), HOOK);
  writeFileSync(path.join(folder, "pb_migrations/1700000000_shop.js"), SCHEMA);
}

test("an existing application with hooks, rules and data stays unchanged, and is relayed", async (t) => {
  const folder = install(shop, null);
  let pb = await PocketBase.start({ folder });
  t.after(() => pb.stop());
  const user = { email: "olga@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
  await pb.create("users", user);
  const olga = await pb.login(user.email, PASSWORD);
  const mine = await pb.create("shops", { name: "Olga's", owner: olga.id });
  await pb.create("orders", { name: "before", shop: mine.id });
  const schema = async () => {
    const { items } = (await pb.call("GET", "/api/collections?perPage=100&sort=name", undefined, pb.root)).body;
    return items.map(({ name, listRule, viewRule, createRule, updateRule, deleteRule, fields }) => ({
      name,
      listRule,
      viewRule,
      createRule,
      updateRule,
      deleteRule,
      fields,
    }));
  };
  const before = await schema();
  await pb.stop({ keep: true });

  // Step 1 of the README: the unchanged config relays nothing, and PocketBase starts.
  for (const part of ["pb_hooks", "pb_migrations"])
    cpSync(path.join(GATEWAY, part), path.join(folder, part), { recursive: true });
  pb = await PocketBase.start({ folder });
  assert.deepEqual(await schema(), before, "no collection, rule or field is another");
  await pb.create("orders", { name: "unrelayed", shop: mine.id });
  // A new config makes every user's access be checked again, in separate rows without a channel.
  const relayed = async () => (await pb.events()).events.filter(({ channels }) => channels.length > 0);
  assert.deepEqual(await relayed(), []);
  await pb.stop({ keep: true });

  const config = path.join(folder, "pb_hooks/gateway.config.js");
  const edited = readFileSync(config, "utf8")
    .replace("  channels: {", '  channels: {\n    shop: { guard: "shops" },')
    .replace("  relay: {}", '  relay: { orders: ["shop:{shop}"] }');
  writeFileSync(config, edited);
  pb = await PocketBase.start({ folder });
  assert.deepEqual(await schema(), before);
  const { id, name } = await pb.create("orders", { name: "tea", shop: mine.id });
  assert.equal(name, "TEA", "the application's hooks run");
  const [event] = await until(async () => {
    const events = await relayed();
    return events.length > 0 && events;
  }, "the event");
  assert.deepEqual([event.channels, event.data.action, event.data.record.name], [[`shop:${mine.id}`], "create", "TEA"]);
  assert.ok((await pb.list("log")).items.some((entry) => entry.name === `order ${id}`));
  assert.deepEqual((await pb.call("GET", "/shop/hello")).body, { hello: "shop" });
  const checks = [
    { user: olga.id, channel: `shop:${mine.id}` },
    { user: "nobody", channel: `shop:${mine.id}` },
  ];
  assert.deepEqual((await pb.gateway("POST", "/api/gateway/authorize", { checks })).body.results, [
    "allowed",
    "denied",
  ]);
  const stranger = await pb.call("POST", "/api/collections/users/records", user);
  assert.ok(stranger.status >= 400, "nobody can sign up who could not before");
});
