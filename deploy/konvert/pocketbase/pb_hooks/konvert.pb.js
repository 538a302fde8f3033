/// <reference path="../pb_data/types.d.ts" />

// What Konvert needs and access rules cannot say. For another application, delete this file.

// A new user is an ordinary one.
onRecordCreate((e) => {
  if (!e.record.getString("role")) e.record.set("role", "user");
  e.next();
}, "users");

// Whoever creates a room is its first member and owns it.
onRecordCreate((e) => {
  const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
  inTransaction(e, (tx) => {
    const owner = e.record.getString("owner");
    if (!owner) return;
    const members = tx.findCachedCollectionByNameOrId("room_members");
    tx.save(new Record(members, { room: e.record.id, user: owner, role: "owner" }));
  });
}, "rooms");

// A direct room has two members. Counted after the insert, since two may be added at the same time.
onRecordCreate((e) => {
  const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
  inTransaction(e, (tx) => {
    const room = tx.findRecordById("rooms", e.record.getString("room"));
    if (room.getString("type") !== "direct") return;
    if (tx.countRecords("room_members", $dbx.hashExp({ room: room.id })) > 2) {
      throw new BadRequestError("A direct room has no place for a third member.");
    }
  });
}, "room_members");
