/// <reference path="../pb_data/types.d.ts" />

// Konvert's requirements that access rules cannot express. For another application, delete this file and the folder
// konvert. PocketBase runs each handler in a separate JavaScript engine, so each handler starts with a require.

// ---- records

// A new user has the role "user". Usernames are unique without regard to upper and lower case.
onRecordCreate((e) => {
  if (!e.record.getString("role")) e.record.set("role", "user");
  require(`${__hooks}/konvert/users.js`).username(e);
  e.next();
}, "users");
onRecordUpdate((e) => {
  require(`${__hooks}/konvert/users.js`).username(e);
  require(`${__hooks}/konvert/keys.js`).publicKeyChanges(e);
}, "users");

// The owner of a new room becomes the first member.
onRecordCreate((e) => {
  if (require(`${__hooks}/konvert/call.js`).isImport(e)) return e.next();
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

onRecordDelete((e) => require(`${__hooks}/konvert/rooms.js`).ownerDeleted(e), "users");

onRecordCreate((e) => require(`${__hooks}/konvert/messages.js`).created(e), "messages");
onRecordUpdate((e) => require(`${__hooks}/konvert/messages.js`).updated(e), "messages");
onRecordCreate((e) => require(`${__hooks}/konvert/messages.js`).reacted(e), "reactions");
onRecordDelete((e) => require(`${__hooks}/konvert/messages.js`).unreacted(e), "reactions");

onRecordDeleteRequest((e) => require(`${__hooks}/konvert/achievements.js`).deleting(e), "messages");

cronAdd("konvert_notifications", "17 3 * * *", () => require(`${__hooks}/konvert/notifications.js`).trim($app));

// ---- routes: each is one transaction

routerAdd("POST", "/api/konvert/users/{id}/ban", (e) => require(`${__hooks}/konvert/users.js`).ban(e));
routerAdd("DELETE", "/api/konvert/users/{id}/ban", (e) => require(`${__hooks}/konvert/users.js`).unban(e));
routerAdd("POST", "/api/konvert/users/{id}/mute", (e) => require(`${__hooks}/konvert/users.js`).mute(e));
routerAdd("DELETE", "/api/konvert/users/{id}/mute", (e) => require(`${__hooks}/konvert/users.js`).unmute(e));
routerAdd("PUT", "/api/konvert/users/{id}/role", (e) => require(`${__hooks}/konvert/users.js`).setRole(e));

// Whether the caller may write at all: a rule's refusal does not say that an account is banned or muted.
routerAdd("GET", "/api/konvert/me", (e) => {
  const { answer, writer } = require(`${__hooks}/konvert/call.js`);
  return answer(e, () => ({ id: writer(e).id }));
});
routerAdd("GET", "/api/konvert/summary", (e) => require(`${__hooks}/konvert/summary.js`).summary(e));
routerAdd("POST", "/api/konvert/rooms", (e) => require(`${__hooks}/konvert/rooms.js`).createRoom(e));
routerAdd("POST", "/api/konvert/favorites", (e) => require(`${__hooks}/konvert/rooms.js`).favorites(e));
routerAdd("DELETE", "/api/konvert/rooms/{id}", (e) => require(`${__hooks}/konvert/rooms.js`).remove(e));
routerAdd("POST", "/api/konvert/rooms/{id}/invite", (e) => require(`${__hooks}/konvert/rooms.js`).invite(e));
routerAdd("POST", "/api/konvert/rooms/{id}/leave", (e) => require(`${__hooks}/konvert/rooms.js`).leave(e));
routerAdd("POST", "/api/konvert/rooms/{id}/read", (e) => require(`${__hooks}/konvert/rooms.js`).read(e));
routerAdd("POST", "/api/konvert/rooms/{id}/keys", (e) => require(`${__hooks}/konvert/keys.js`).save(e));
routerAdd("POST", "/api/konvert/rooms/{id}/pins", (e) => require(`${__hooks}/konvert/messages.js`).pin(e));
routerAdd("DELETE", "/api/konvert/rooms/{id}/pins", (e) => require(`${__hooks}/konvert/messages.js`).unpin(e));
routerAdd("DELETE", "/api/konvert/rooms/{id}/pins/{message}", (e) =>
  require(`${__hooks}/konvert/messages.js`).unpin(e),
);

routerAdd("POST", "/api/konvert/direct", (e) => require(`${__hooks}/konvert/direct.js`).open(e));
routerAdd("POST", "/api/konvert/direct/{id}/hide", (e) => require(`${__hooks}/konvert/direct.js`).hide(e));
routerAdd("POST", "/api/konvert/messages/{id}/forward", (e) => require(`${__hooks}/konvert/messages.js`).forward(e));

routerAdd("POST", "/api/konvert/friends/{id}", (e) => require(`${__hooks}/konvert/friends.js`).ask(e));
routerAdd("DELETE", "/api/konvert/friends/{id}", (e) => require(`${__hooks}/konvert/friends.js`).remove(e));
routerAdd("POST", "/api/konvert/friend-requests/{id}/accept", (e) =>
  require(`${__hooks}/konvert/friends.js`).accept(e),
);
routerAdd("POST", "/api/konvert/friend-requests/{id}/reject", (e) =>
  require(`${__hooks}/konvert/friends.js`).reject(e),
);

routerAdd("DELETE", "/api/konvert/notifications/{id}", (e) => require(`${__hooks}/konvert/notifications.js`).remove(e));

routerAdd("POST", "/api/konvert/polls", (e) => require(`${__hooks}/konvert/polls.js`).createPoll(e));
routerAdd("GET", "/api/konvert/polls/{id}", (e) => require(`${__hooks}/konvert/polls.js`).get(e));
routerAdd("POST", "/api/konvert/polls/{id}/vote", (e) => require(`${__hooks}/konvert/polls.js`).vote(e));

routerAdd("GET", "/api/konvert/users/{id}/achievements", (e) => require(`${__hooks}/konvert/achievements.js`).list(e));
routerAdd("POST", "/api/konvert/achievements/{id}/unlock", (e) =>
  require(`${__hooks}/konvert/achievements.js`).unlock(e),
);

// The old frontend asks its Supabase function for a sign of life, and shows "offline" without the answer. The path stays
// the same when VITE_SUPABASE_URL names PocketBase.
routerAdd("GET", "/functions/v1/{app}/health", (e) => e.json(200, { status: "ok" }));
