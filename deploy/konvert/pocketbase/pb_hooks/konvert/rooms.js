// Rooms and their members.

const { refuse, caller, writer, answer, transaction, visible, find, create, body, now, isPlain } = require(
  `${__hooks}/konvert/call.js`,
);
const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
const { notify } = require(`${__hooks}/konvert/notifications.js`);
const achievements = require(`${__hooks}/konvert/achievements.js`);

/** Maximum number of members added by a call. */
const MAX_MEMBERS = 200;

function membership(app, room, user) {
  return find(app, "room_members", "room = {:room} && user = {:user}", { room, user });
}

/** The caller's membership; refuses rooms of non-members as missing. */
function ownMembership(app, e, user) {
  const id = e.request.pathValue("id");
  return membership(app, id, user.id) ?? refuse.missing("No such room among the caller's rooms.");
}

/** Whether one of two users blocks the other. */
function isBlocked(app, one, other) {
  const row = new DynamicModel({ found: 0 });
  app
    .db()
    .newQuery(
      `SELECT EXISTS (SELECT 1 FROM users u, json_each(iif(json_valid(u.blocked), u.blocked, '[]')) b
         WHERE (u.id = {:one} AND b.value = {:other}) OR (u.id = {:other} AND b.value = {:one})) found`,
    )
    .bind({ one, other })
    .one(row);
  return row.found === 1;
}

/** Adds a user to a room with a notification; does nothing for a member. */
function add(tx, room, userId, inviter) {
  const user = find(tx, "users", "id = {:id} && deleted = false", { id: String(userId) });
  if (!user) refuse.missing(`No such user: ${userId}.`);
  if (membership(tx, room.id, user.id)) return;
  if (isBlocked(tx, inviter.id, user.id)) refuse.forbidden("One of the two users blocks the other.");
  create(tx, "room_members", { room: room.id, user: user.id, role: "member" });
  notify(tx, { user: user.id, type: "room_invite", from: inviter.id, room: room.id });
  achievements.invited(tx, inviter.id, room.id);
}

function createRoom(e) {
  return answer(e, () => {
    const me = writer(e);
    const { id, name, type, members = [] } = body(e);
    if (type !== "public" && type !== "private") refuse.invalid('type must be "public" or "private".');
    if (typeof name !== "string" || !name.trim()) refuse.invalid("A room needs a name.");
    if (!Array.isArray(members) || members.length > MAX_MEMBERS)
      refuse.invalid(`members: a list of up to ${MAX_MEMBERS} ids.`);
    return transaction(e.app, (tx) => {
      const existing = id && find(tx, "rooms", "id = {:id}", { id });
      if (existing) return existing.getString("owner") === me.id ? { id } : refuse.conflict("This id is taken.");
      const room = create(tx, "rooms", { ...(id && { id }), name: name.trim(), type, owner: me.id });
      for (const user of new Set(members)) if (user !== me.id) add(tx, room, user, me);
      return { id: room.id };
    });
  });
}

/** Moderators and owners invite. In public rooms all members may, since everybody can join. */
function invite(e) {
  return answer(e, () => {
    const me = writer(e);
    return transaction(e.app, (tx) => {
      const room = visible(tx, e, "rooms", e.request.pathValue("id"));
      const own = membership(tx, room.id, me.id);
      if (!own) refuse.forbidden("Only members may invite.");
      if (room.getString("type") === "direct") refuse.forbidden("A direct room cannot have a third member.");
      if (room.getBool("favorites")) refuse.forbidden("Favorites have no other members.");
      if (room.getString("type") === "private" && own.getString("role") === "member") {
        refuse.forbidden("Only moderators and the owner may invite to a private room.");
      }
      add(tx, room, body(e).user, me);
    });
  });
}

/** The owner's role passes to the oldest moderator, else the oldest member. An empty private room is deleted. */
function leave(e) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const own = ownMembership(tx, e, me);
      const room = tx.findRecordById("rooms", own.getString("room"));
      if (room.getString("type") === "direct") refuse.forbidden("A direct room cannot be left; hide it.");
      if (room.getBool("favorites")) refuse.forbidden("Favorites cannot be left.");
      tx.delete(own);
      if (own.getString("role") === "owner") handOn(tx, room);
    });
  });
}

/** Gives a room without an owner to the heir. An empty private room is deleted, an empty public room stays. */
function handOn(tx, room) {
  const next = heir(tx, room.id);
  if (next) {
    next.set("role", "owner");
    tx.save(next);
    room.set("owner", next.getString("user"));
    tx.save(room);
  } else if (room.getString("type") === "private") {
    tx.delete(room);
  }
}

/** A record event "delete" of users: the user's rooms get another owner. Direct rooms stay with the other user. */
function ownerDeleted(e) {
  if (isPlain(e)) return e.next();
  const owner = e.record.id;
  const rooms = e.app.findRecordsByFilter("rooms", "owner = {:owner} && type != 'direct'", "", 0, 0, { owner });
  const ids = rooms.map(({ id }) => id);
  inTransaction(e, (tx) => {
    for (const id of ids) handOn(tx, tx.findRecordById("rooms", id));
  });
}

/** Owners delete a room for everybody. A direct room disappears for the caller only, until its next message. */
function remove(e) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const room = visible(tx, e, "rooms", e.request.pathValue("id"));
      if (room.getString("type") === "direct") {
        const own = membership(tx, room.id, me.id);
        own.set("hidden_at", now());
        tx.save(own);
      } else if (room.getString("owner") === me.id) {
        tx.delete(room);
      } else {
        refuse.forbidden("Only the owner may delete the room.");
      }
    });
  });
}

function heir(tx, room) {
  for (const role of ["moderator", "member"]) {
    const [oldest] = tx.findRecordsByFilter("room_members", "room = {:room} && role = {:role}", "created", 1, 0, {
      room,
      role,
    });
    if (oldest) return oldest;
  }
  return null;
}

function favorites(e) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const existing = find(tx, "rooms", "owner = {:owner} && favorites = true", { owner: me.id });
      const room = existing ?? create(tx, "rooms", { type: "private", owner: me.id, favorites: true }); // clients name it in their language
      return { id: room.id };
    });
  });
}

/**
 * Moves the caller's read mark to the newest message, and marks notifications of the room as read. Without unread
 * messages and notifications, nothing is written.
 */
function read(e) {
  return answer(e, () => {
    const me = caller(e);
    const { mentions = true, reactions = true } = body(e);
    const id = e.request.pathValue("id");
    return transaction(e.app, (tx) => {
      const own = membership(tx, id, me.id);
      if (!own) {
        visible(tx, e, "rooms", id); // a public room without a membership has no mark
        return { last_read: "" };
      }
      const newest = new DynamicModel({ created: "" });
      tx.db()
        .newQuery("SELECT coalesce(max(created), '') created FROM messages WHERE room = {:id}")
        .bind({ id })
        .one(newest);
      if (newest.created > own.getString("last_read")) {
        own.set("last_read", newest.created);
        tx.save(own);
      }
      if (mentions) clear(tx, me.id, id, "mention");
      if (reactions) clear(tx, me.id, id, "reaction");
      return { last_read: own.getString("last_read") };
    });
  });
}

/** The user's other devices get an event for each of the newest 100 notifications; older ones are marked silently. */
function clear(tx, user, room, type) {
  const filter = "user = {:user} && room = {:room} && type = {:type} && read = false";
  const found = tx.findRecordsByFilter("notifications", filter, "-created", 101, 0, { user, room, type });
  for (const notification of found.slice(0, 100)) {
    notification.set("read", true);
    tx.save(notification);
  }
  if (found.length <= 100) return;
  tx.db()
    .newQuery("UPDATE notifications SET read = TRUE WHERE user = {:user} AND room = {:room} AND type = {:type}")
    .bind({ user, room, type })
    .execute();
}

module.exports = { createRoom, invite, leave, remove, ownerDeleted, favorites, read, membership, isBlocked };
