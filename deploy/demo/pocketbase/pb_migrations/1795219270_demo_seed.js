/// <reference path="../pb_data/types.d.ts" />

// The content of the demo: two users and a private room of both. The ids are fixed, so that the demo page and
// `konvert-gateway dev` know them.
migrate(
  (app) => {
    const create = (collection, values) => {
      const record = new Record(app.findCollectionByNameOrId(collection), values);
      app.save(record);
      return record;
    };
    for (const [id, name] of [
      ["alicedemo000000", "Alice"],
      ["bobdemo00000000", "Bob"],
    ]) {
      const email = `${name.toLowerCase()}@example.com`;
      create("users", { id, name, email, password: `${name.toLowerCase()}-demo`, role: "user", verified: true });
    }
    // With the hooks of the chat, the owner becomes a member in the same save.
    create("rooms", { id: "demoroom0000000", name: "Demo", owner: "alicedemo000000", type: "private" });
    for (const [user, role] of [
      ["alicedemo000000", "owner"],
      ["bobdemo00000000", "member"],
    ]) {
      const membership = { room: "demoroom0000000", user };
      if (!app.countRecords("room_members", $dbx.hashExp(membership))) create("room_members", { ...membership, role });
    }
  },

  (app) => {
    app.delete(app.findRecordById("rooms", "demoroom0000000"));
    for (const id of ["alicedemo000000", "bobdemo00000000"]) app.delete(app.findRecordById("users", id));
  },
);
