// Direct rooms: one room for each pair of users, with both memberships from the beginning.

const { refuse, caller, answer, transaction, find, create, body, now } = require(`${__hooks}/konvert/call.js`);
const { membership, isBlocked } = require(`${__hooks}/konvert/rooms.js`);

function keyOf(one, other) {
  return [one, other].sort().join(":");
}

/** Finds the direct room of the caller and another user, or makes it. */
function open(e) {
  return answer(e, () => {
    const me = caller(e);
    const other = String(body(e).user ?? "");
    if (other === me.id) refuse.invalid("A direct room needs another user.");
    return transaction(e.app, (tx) => {
      if (!find(tx, "users", "id = {:id} && deleted = false", { id: other })) refuse.missing("No such user.");
      const existing =
        find(tx, "rooms", "direct_key = {:key}", { key: keyOf(me.id, other) }) ?? adopt(tx, me.id, other);
      if (existing) {
        show(tx, existing.id, me.id);
        return { id: existing.id, created: false };
      }
      if (me.getString("muted_until") > now()) refuse.forbidden("This account is muted.");
      if (isBlocked(tx, me.id, other)) refuse.forbidden("One of the two users blocks the other.");
      return { id: build(tx, me.id, other).id, created: true };
    });
  });
}

/** Sets the key of an existing direct room without a key (created by plain records or an import). */
function adopt(tx, one, other) {
  const row = new DynamicModel({ id: "" });
  tx.db()
    .newQuery(
      `SELECT coalesce(min(r.id), '') id FROM room_members a
       JOIN room_members b ON b.room = a.room AND b.user = {:other}
       JOIN rooms r ON r.id = a.room AND r.type = 'direct'
       WHERE a.user = {:one}`,
    )
    .bind({ one, other })
    .one(row);
  if (!row.id) return null;
  const room = tx.findRecordById("rooms", row.id);
  room.set("direct_key", keyOf(one, other));
  tx.save(room);
  return room;
}

function build(tx, me, other) {
  const room = create(tx, "rooms", { type: "direct", owner: me, direct_key: keyOf(me, other) }); // adds the owner
  create(tx, "room_members", { room: room.id, user: other, role: "member" });
  return room;
}

/** Hides a direct room in the caller's list until its next message. */
function hide(e) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const own = membership(tx, e.request.pathValue("id"), me.id);
      const room = own && tx.findRecordById("rooms", own.getString("room"));
      if (!room || room.getString("type") !== "direct") refuse.missing("No such direct room.");
      own.set("hidden_at", now());
      tx.save(own);
    });
  });
}

function show(tx, room, user) {
  const own = membership(tx, room, user);
  if (!own || !own.getString("hidden_at")) return;
  own.set("hidden_at", "");
  tx.save(own);
}

module.exports = { open, hide };
