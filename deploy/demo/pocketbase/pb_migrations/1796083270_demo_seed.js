/// <reference path="../pb_data/types.d.ts" />

// The content of the demo: two users, a private and a public room of both. The ids are fixed, so that the demo page and
// `konvert-gateway dev` know them. What exists already is kept: an earlier version of the demo made some of it.
migrate(
  (app) => {
    const create = (collection, where, values) => {
      if (app.countRecords(collection, $dbx.hashExp(where))) return;
      app.save(new Record(app.findCollectionByNameOrId(collection), { ...where, ...values }));
    };
    for (const [id, name] of [
      ["alicedemo000000", "Alice"],
      ["bobdemo00000000", "Bob"],
    ]) {
      const email = `${name.toLowerCase()}@example.com`;
      const login = { username: name.toLowerCase(), email, password: `${name.toLowerCase()}-demo` };
      create("users", { id }, { name, ...login, role: "user", verified: true });
    }
    // With the hooks of the chat, the owner becomes a member in the same save.
    create("rooms", { id: "demoroom0000000" }, { name: "Demo", owner: "alicedemo000000", type: "private" });
    create("rooms", { id: "generalroom0000" }, { name: "General", owner: "alicedemo000000", type: "public" });
    for (const room of ["demoroom0000000", "generalroom0000"]) {
      create("room_members", { room, user: "alicedemo000000" }, { role: "owner" });
      create("room_members", { room, user: "bobdemo00000000" }, { role: "member" });
    }
  },

  (app) => {
    for (const id of ["demoroom0000000", "generalroom0000"]) app.delete(app.findRecordById("rooms", id));
    for (const id of ["alicedemo000000", "bobdemo00000000"]) app.delete(app.findRecordById("users", id));
  },
);
