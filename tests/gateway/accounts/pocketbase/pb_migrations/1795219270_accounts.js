/// <reference path="../pb_data/types.d.ts" />

// Members and staff, and rooms that are open to everybody, to members, or to the invited.
migrate((app) => {
  const make = (type, name, fields, rules = {}) => {
    const collection = new Collection({ type, name, fields });
    app.save(collection);
    Object.assign(collection, rules);
    app.save(collection);
    return app.findCollectionByNameOrId(name);
  };
  const relation = (name, { id }) => ({ type: "relation", name, collectionId: id, maxSelect: 1, cascadeDelete: true });
  const date = (name) => ({ type: "date", name });

  const signedIn = '@request.auth.id != ""';
  const members = make("auth", "members", [date("banned_until"), date("muted_until")], { viewRule: signedIn });
  members.fields.add(new RelationField({ name: "blocked", collectionId: members.id, maxSelect: 99 }));
  app.save(members);
  make("auth", "staff", [date("suspended_until")], { viewRule: "" });

  const visibility = { type: "select", name: "visibility", values: ["public", "members", "invited"], maxSelect: 1 };
  const rooms = make("base", "rooms", [visibility, { type: "text", name: "name" }]);
  make("base", "invitations", [relation("room", rooms), relation("member", members)]);
  const rule =
    'visibility = "public" || (visibility = "members" && @request.auth.collectionName = "members") || ' +
    '(visibility = "invited" && invitations_via_room.member ?= @request.auth.id)';
  Object.assign(rooms, { listRule: rule, viewRule: rule });
  app.save(rooms);
  make("base", "notes", [relation("room", rooms), { type: "text", name: "text" }]);
  make("base", "vaults", [{ type: "text", name: "name" }]);
});
