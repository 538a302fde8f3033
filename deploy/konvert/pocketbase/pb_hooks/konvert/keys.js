// Keys of rooms for end-to-end encryption. The server stores encrypted keys and cannot read them.

const { refuse, caller, answer, transaction, find, create, query, body, isPlain } = require(
  `${__hooks}/konvert/call.js`,
);
const { membership } = require(`${__hooks}/konvert/rooms.js`);

const MAX_KEYS = 1000;

/**
 * Stores a room's key for several members in a transaction. Without a version: the room's current version, or the next
 * version if a user has a different key of the current version.
 */
function save(e) {
  return answer(e, () => {
    const me = caller(e);
    const room = e.request.pathValue("id");
    const { keys, version } = body(e);
    const entries = Object.entries(keys ?? {});
    if (entries.length === 0 || entries.length > MAX_KEYS)
      refuse.invalid(`keys: an object of 1 to ${MAX_KEYS} encrypted keys by user id.`);
    if (!entries.every(([, key]) => typeof key === "string" && key !== "")) refuse.invalid("Each key must be a text.");
    if (version !== undefined && !(Number.isInteger(version) && version >= 0))
      refuse.invalid("version must be a whole number.");
    return transaction(e.app, (tx) => {
      if (!membership(tx, room, me.id)) refuse.forbidden("Only members may store keys of a room.");
      const current = version ?? nextVersion(tx, room, entries);
      for (const [user, key] of entries) store(tx, room, user, key, current);
      return { version: current };
    });
  });
}

function stored(tx, room, user, version) {
  return find(tx, "room_keys", "room = {:room} && user = {:user} && key_version = {:version}", { room, user, version });
}

function nextVersion(tx, room, entries) {
  const newest = query(tx, "SELECT json_array(max(key_version)) value FROM room_keys WHERE room = {:room}", {
    room,
  })[0];
  if (newest === null) return 1;
  const differs = entries.some(([user, key]) => {
    const existing = stored(tx, room, user, newest);
    return existing && existing.getString("encrypted_key") !== key;
  });
  return differs ? newest + 1 : newest;
}

function store(tx, room, user, key, version) {
  if (!membership(tx, room, user)) refuse.forbidden(`Keys are for members only; ${user} is none.`);
  const existing = stored(tx, room, user, version);
  if (!existing) create(tx, "room_keys", { room, user, encrypted_key: key, key_version: version });
  else if (existing.getString("encrypted_key") !== key)
    refuse.conflict(`${user} has another key of version ${version}.`);
}

/**
 * Continues an update of a user. A new public key is told to the members of the user's encrypted rooms, as an update of
 * the membership: the members then share the rooms' keys.
 */
function publicKeyChanges(e) {
  const key = e.record.getString("public_key");
  if (key === "" || key === e.record.original().getString("public_key") || isPlain(e)) return e.next();
  const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
  inTransaction(e, (tx) => {
    const params = { user: e.record.id };
    const memberships = tx.findRecordsByFilter(
      "room_members",
      "user = {:user} && room.type != 'public'",
      "",
      0,
      0,
      params,
    );
    for (const own of memberships) tx.save(own);
  });
}

module.exports = { publicKeyChanges, save };
