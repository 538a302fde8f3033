/// <reference path="../pb_data/types.d.ts" />

// The mark of imported users whose password hash PocketBase cannot check; see pb_hooks/konvert/import_login.js.
migrate(
  (app) => {
    const users = app.findCollectionByNameOrId("users");
    users.fields.add(new BoolField({ name: "password_pending", hidden: true }));
    app.save(users);
  },
  (app) => {
    const users = app.findCollectionByNameOrId("users");
    users.fields.removeByName("password_pending");
    app.save(users);
  },
);
