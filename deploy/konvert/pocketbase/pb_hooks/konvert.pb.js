/// <reference path="../pb_data/types.d.ts" />

// Konvert's requirements that access rules cannot express. For another application, delete this file.

// A new user has the role "user".
onRecordCreate((e) => {
  if (!e.record.getString("role")) e.record.set("role", "user");
  e.next();
}, "users");

// The owner of a new room becomes the first member.
onRecordCreate((e) => {
  const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
  inTransaction(e, (tx) => {
    const owner = e.record.getString("owner");
    if (!owner) return;
    const members = tx.findCachedCollectionByNameOrId("room_members");
    tx.save(new Record(members, { room: e.record.id, user: owner, role: "owner" }));
  });
}, "rooms");

// A direct room has at most two members. The count follows the insert, since two members may be added at the same time.
onRecordCreate((e) => {
  const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
  inTransaction(e, (tx) => {
    const room = tx.findRecordById("rooms", e.record.getString("room"));
    if (room.getString("type") !== "direct") return;
    if (tx.countRecords("room_members", $dbx.hashExp({ room: room.id })) > 2) {
      throw new BadRequestError("A direct room cannot have a third member.");
    }
  });
}, "room_members");
