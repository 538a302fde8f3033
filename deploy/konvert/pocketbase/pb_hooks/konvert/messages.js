// Messages: mentions, blocked users, edits, forwarding, pins; reactions.

const { refuse, writer, answer, transaction, visible, find, create, query, isPlain, body } = require(
  `${__hooks}/konvert/call.js`,
);
const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);
const { notify } = require(`${__hooks}/konvert/notifications.js`);
const { membership } = require(`${__hooks}/konvert/rooms.js`);

/** Maximum number of users mentioned by name in a message. */
const MAX_MENTIONS = 20;
const MAX_PINS = 50;
/** Longest kept name of a file, in characters. */
const MAX_FILE_NAME = 255;
/** Control characters, and marks that reverse the direction of writing, which can hide a file's extension. */
const INVISIBLE = /[\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g;

/** A record event "create" of messages. */
function created(e) {
  if (isPlain(e)) return e.next();
  const { record } = e;
  refuseBlocked(e.app, record);
  noteFiles(record, {});
  findMentions(e.app, record);
  const mentioned = record.getStringSlice("mentions");
  if (mentioned.length === 0) return e.next();
  inTransaction(e, (tx) => notifyMentioned(tx, record, mentioned));
}

/** A record event "update" of messages. */
function updated(e) {
  const { record } = e;
  const before = record.original();
  if (isPlain(e)) return e.next();
  noteFiles(record, fileNotes(before));
  if (before.getString("content") === record.getString("content")) return e.next();
  record.set("edited_at", new DateTime());
  const old = before.getStringSlice("mentions");
  if (old.join() === record.getStringSlice("mentions").join()) {
    record.set("mentions", []);
    findMentions(e.app, record);
    // Encrypted content keeps the mentions that its author has set.
    if (record.getStringSlice("mentions").length === 0 && !record.getString("content").includes("@"))
      record.set("mentions", old);
  }
  const added = record.getStringSlice("mentions").filter((user) => !old.includes(user));
  if (added.length === 0) return e.next();
  inTransaction(e, (tx) => notifyMentioned(tx, record, added));
}

/** Original names and sizes of a message's files, by stored name. */
function fileNotes(record) {
  return JSON.parse(record.getString("file_notes") || "null") ?? {};
}

/** Notes names and sizes of new files, and keeps the `known` notes of others. A value of the client is replaced. */
function noteFiles(record, known) {
  const fresh = record.getUnsavedFiles("files");
  const notes = {};
  for (const name of record.getStringSlice("files")) if (known[name]) notes[name] = known[name];
  for (const file of fresh) {
    const name = file.originalName.normalize().replace(INVISIBLE, "");
    notes[file.name] = { name: [...name].slice(-MAX_FILE_NAME).join(""), size: file.size };
  }
  record.set("file_notes", Object.keys(notes).length > 0 ? notes : null);
}

/** In a direct room, users who block each other cannot write. */
function refuseBlocked(app, record) {
  const { blocked } = query(
    app,
    `SELECT json_object('blocked', EXISTS (
       SELECT 1 FROM rooms r
       JOIN room_members m ON m.room = r.id AND m.user != {:author}
       JOIN users u ON u.id IN (m.user, {:author})
       JOIN json_each(iif(json_valid(u.blocked), u.blocked, '[]')) b ON b.value = iif(u.id = m.user, {:author}, m.user)
       WHERE r.id = {:room} AND r.type = 'direct')) value`,
    { room: record.getString("room"), author: record.getString("author") },
  );
  if (!blocked) return;
  const message = "One of the two users blocks the other.";
  throw new ForbiddenError(message, { room: new ValidationError("blocked", message) });
}

/** Finds `@username` in plain text, unless the client has set mentions. Users without access to the room are ignored. */
function findMentions(app, record) {
  const content = record.getString("content");
  if (record.getString("type") !== "text" || record.getBool("forwarded") || !content.includes("@")) return;
  if (record.getStringSlice("mentions").length > 0) return;
  const names = new Set();
  for (const [, name] of content.matchAll(/(?:^|[\s(])@([^\s@/:,]{2,50})/g)) {
    names.add(name.toLowerCase());
    names.add(name.toLowerCase().replace(/[.!?;)"']+$/, "")); // the end of a sentence
    if (names.size >= 2 * MAX_MENTIONS) break;
  }
  if (names.size === 0) return;
  const found = query(
    app,
    `SELECT json_group_array(u.id) value FROM users u JOIN rooms r ON r.id = {:room}
     WHERE u.username_key IN (SELECT value FROM json_each({:names}))
       AND (r.type = 'public' OR EXISTS (SELECT 1 FROM room_members m WHERE m.room = r.id AND m.user = u.id))`,
    { room: record.getString("room"), names: JSON.stringify([...names]) },
  );
  record.set("mentions", found.slice(0, MAX_MENTIONS));
}

/** Notifies those of the users who may see the room and do not block the author. */
function notifyMentioned(tx, record, users) {
  const [room, from] = [record.getString("room"), record.getString("author")];
  const readers = query(
    tx,
    `SELECT json_group_array(u.id) value FROM users u JOIN rooms r ON r.id = {:room}
     WHERE u.id IN (SELECT value FROM json_each({:users}))
       AND (r.type = 'public' OR EXISTS (SELECT 1 FROM room_members m WHERE m.room = r.id AND m.user = u.id))
       AND NOT EXISTS (SELECT 1 FROM json_each(iif(json_valid(u.blocked), u.blocked, '[]')) WHERE value = {:from})`,
    { room, from, users: JSON.stringify(users) },
  );
  for (const user of readers) notify(tx, { user, type: "mention", from, room, message: record.id });
}

/** A record event "create" of reactions: the author of the message is notified. */
function reacted(e) {
  if (isPlain(e)) return e.next();
  inTransaction(e, (tx) => {
    const message = find(tx, "messages", "id = {:id}", { id: e.record.getString("message") });
    const [user, from] = [message?.getString("author"), e.record.getString("user")];
    if (!user || user === from) return;
    const [room, content] = [message.getString("room"), e.record.getString("emoji")];
    notify(tx, { user, type: "reaction", from, room, message: message.id, content });
  });
}

/** A record event "delete" of reactions: the notification goes too. */
function unreacted(e) {
  if (isPlain(e)) return e.next();
  inTransaction(e, (tx) => {
    const values = {
      message: e.record.getString("message"),
      from: e.record.getString("user"),
      emoji: e.record.getString("emoji"),
    };
    const filter = "message = {:message} && from = {:from} && type = 'reaction' && content = {:emoji}";
    for (const notification of tx.findRecordsByFilter("notifications", filter, "", 0, 0, values))
      tx.delete(notification);
  });
}

/** Copies a message, with its files, into another room of the caller. */
function forward(e) {
  return answer(e, () => {
    const me = writer(e);
    const { room: target, content, id } = body(e);
    return transaction(e.app, (tx) => {
      const source = visible(tx, e, "messages", e.request.pathValue("id"));
      if (!membership(tx, String(target), me.id))
        refuse.forbidden("Only members of the target room may forward to it.");
      if (["poll", "system"].includes(source.getString("type")))
        refuse.invalid("Polls and system messages cannot be forwarded.");
      const existing = id && find(tx, "messages", "id = {:id}", { id });
      if (existing) return existing.getString("author") === me.id ? { id } : refuse.conflict("This id is taken.");
      const values = {
        ...(id && { id }),
        room: target,
        author: me.id,
        type: source.getString("type"),
        content: typeof content === "string" ? content : source.getString("content"),
        forwarded: true,
        forwarded_from: source.id,
      };
      return { id: withCopies(tx, source, (files) => create(tx, "messages", { ...values, files })).id };
    });
  });
}

/** Runs `work` with copies of a message's files, which are read from the storage while the new message is saved. */
function withCopies(tx, message, work) {
  const names = message.getStringSlice("files");
  if (names.length === 0) return work([]);
  const notes = fileNotes(message);
  const files = tx.newFilesystem();
  try {
    return work(
      names.map((name) => {
        const copy = files.getReuploadableFile(`${message.baseFilesPath()}/${name}`, false);
        copy.originalName = notes[name]?.name ?? name;
        return copy;
      }),
    );
  } finally {
    files.close();
  }
}

/** Who may pin: moderators and the owner, both users of a direct room, and members with a global role above "user". */
function pinner(tx, e) {
  const me = writer(e);
  const room = visible(tx, e, "rooms", e.request.pathValue("id"));
  const own = membership(tx, room.id, me.id);
  const may =
    own &&
    (own.getString("role") !== "member" || room.getString("type") === "direct" || me.getString("role") !== "user");
  if (!may) refuse.forbidden("Only moderators and the owner may pin messages.");
  return { me, room };
}

function pin(e) {
  return answer(e, () =>
    transaction(e.app, (tx) => {
      const { me, room } = pinner(tx, e);
      const message = find(tx, "messages", "id = {:id} && room = {:room}", {
        id: String(body(e).message),
        room: room.id,
      });
      if (!message) refuse.missing("No such message in this room.");
      const existing = find(tx, "pins", "room = {:room} && message = {:message}", {
        room: room.id,
        message: message.id,
      });
      if (existing) tx.delete(existing); // a repeated pin is the newest again
      if (tx.countRecords("pins", $dbx.hashExp({ room: room.id })) >= MAX_PINS) {
        refuse.invalid(`A room has at most ${MAX_PINS} pins; remove one first.`);
      }
      create(tx, "pins", { room: room.id, message: message.id, user: me.id });
      room.set("pinned_message", message.id);
      tx.save(room);
    }),
  );
}

/** Removes the named pin, else the newest. */
function unpin(e) {
  return answer(e, () =>
    transaction(e.app, (tx) => {
      const { room } = pinner(tx, e);
      const id = e.request.pathValue("message") || room.getString("pinned_message");
      const existing = id && find(tx, "pins", "room = {:room} && message = {:id}", { room: room.id, id });
      if (!existing && room.getString("pinned_message") !== id) refuse.missing("This message is not pinned.");
      if (existing) tx.delete(existing);
      if (room.getString("pinned_message") !== id) return;
      const [next] = tx.findRecordsByFilter("pins", "room = {:room}", "-created", 1, 0, { room: room.id });
      room.set("pinned_message", next ? next.getString("message") : "");
      tx.save(room);
    }),
  );
}

module.exports = { created, updated, reacted, unreacted, forward, pin, unpin };
