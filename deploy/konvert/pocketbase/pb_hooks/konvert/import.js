// The server side of konvert-migrate: writes rows unchanged, with the original times, and reads rows back.

const { refuse, answer, transaction, find, query, queryText } = require(`${__hooks}/konvert/call.js`);
const { BULK, bulk, endBulk } = require(`${__hooks}/konvert/import_bulk.js`);

/** Version of these routes; konvert-migrate refuses other versions. */
const VERSION = 2;

/** SQLite's first version with `jsonb_each`: major and minor. */
const SQLITE_MIN = [3, 51];

/** Length of PocketBase's own ids, the ids of records made by users here. */
const OWN_ID = 15;

/** Kinds that PocketBase validates, record by record. */
const RECORDS = ["users", "rooms", "polls", "pins", "friend_requests", "achievements", "room_keys", "files"];

const OF_ROOM = "(SELECT id FROM messages WHERE room = {:id})";
/** Statements that remove the references of many records to a record, by kind. */
const DEPENDENTS = {
  rooms: [
    `DELETE FROM reactions WHERE message IN ${OF_ROOM}`,
    `DELETE FROM notifications WHERE room = {:id} OR message IN ${OF_ROOM}`,
    `DELETE FROM poll_votes WHERE poll IN (SELECT id FROM polls WHERE room = {:id})`,
    `DELETE FROM polls WHERE room = {:id}`,
    `DELETE FROM pins WHERE room = {:id}`,
    `UPDATE messages SET reply_to = '' WHERE reply_to IN ${OF_ROOM} AND room != {:id}`,
    `UPDATE messages SET forwarded_from = '' WHERE forwarded_from IN ${OF_ROOM} AND room != {:id}`,
    `UPDATE rooms SET pinned_message = '' WHERE id = {:id}`,
    `DELETE FROM messages WHERE room = {:id}`,
  ],
  users: [
    `DELETE FROM reactions WHERE user = {:id}`,
    `DELETE FROM notifications WHERE user = {:id} OR \`from\` = {:id}`,
    `UPDATE messages SET author = '' WHERE author = {:id}`,
  ],
};

/** The version, and the rows of each kind; with ?before=DATE, only rows created until then. */
function state(e) {
  return answer(e, () => {
    const sqlite = query(e.app, "SELECT json_quote(sqlite_version()) value", {});
    const [major, minor] = sqlite.split(".").map(Number);
    if (major < SQLITE_MIN[0] || (major === SQLITE_MIN[0] && minor < SQLITE_MIN[1])) {
      refuse.conflict(
        `The import needs SQLite ${SQLITE_MIN.join(".")}; this PocketBase has ${sqlite}. Update PocketBase, then repeat.`,
      );
    }
    const before = e.request.url.query().get("before");
    const conditions = before ? [$dbx.exp("created <= {:before}", { before })] : [];
    const counts = {};
    for (const name of [...Object.keys(BULK), ...RECORDS]) counts[name] = e.app.countRecords(name, ...conditions);
    return { version: VERSION, counts };
  });
}

/** A kind from the path; anything else is refused, since names become part of statements. */
function kindOf(e) {
  const kind = e.request.pathValue("kind");
  if (!(kind in BULK) && !RECORDS.includes(kind)) refuse.missing(`There is no kind "${kind}" of imported rows.`);
  return kind;
}

/**
 * Writes a JSON array of rows. An existing row is replaced if the new row has a later `updated`, or by ?force=1 if it
 * differs. Answers {created, updated, unchanged, rejected: [{id, reason}]}.
 */
function rows(e) {
  return answer(e, () => {
    const kind = kindOf(e);
    const options = e.request.url.query();
    const force = options.get("force") === "1";
    const text = toString(e.request.body, 72 << 20);
    if (kind in BULK) return bulk(e.app, kind, text, Number(options.get("rows")), force);
    const { Importer } = require(`${__hooks}/konvert/import_records.js`);
    return transaction(e.app, (tx) => new Importer(tx, kind, force).save(JSON.parse(text)));
  });
}

/**
 * Reads rows: {ids, column?, columns} → {rows}. The rows with one of the ids in `column` (default: `id`), as objects in
 * no order; missing rows are absent.
 */
function read(e) {
  const rowsOf = () => {
    const kind = kindOf(e);
    const { ids, column = "id", columns } = JSON.parse(toString(e.request.body, 72 << 20));
    for (const name of [column, ...columns]) {
      if (!/^[a-z_]{1,40}$/i.test(name)) refuse.invalid("column, columns: names of fields.");
    }
    const pairs = columns.map((c) => `'${c}', t.\`${c}\``);
    const sql = `SELECT '{"rows":' || json_group_array(json_object(${pairs})) || '}' value FROM json_each({:ids}) r JOIN ${kind} t ON t.\`${column}\` = r.value`;
    return queryText(e.app, sql, { ids: JSON.stringify(ids) });
  };
  // The answer is SQLite's text, unparsed: parsing and printing in JavaScript would take longer than the query.
  return answer(e, rowsOf, (text) => {
    e.response.header().set("Content-Type", "application/json");
    return e.string(200, text);
  });
}

/**
 * Removes imported records after a deletion in the old chat: {ids} → {removed, kept}. Users and rooms with messages
 * written here stay and count as kept. Records that PocketBase's cascade removes are relayed as deleted.
 */
function remove(e) {
  return answer(e, () => {
    const kind = kindOf(e);
    const { importing } = require(`${__hooks}/konvert/import_records.js`);
    const { ids } = JSON.parse(toString(e.request.body, 72 << 20));
    const result = { removed: 0, kept: 0 };
    transaction(e.app, (tx) => {
      for (const id of ids) {
        const record = find(tx, kind, "id = {:id}", { id });
        if (!record) continue;
        if (hasOwnMessages(tx, kind, id)) {
          result.kept += 1;
          continue;
        }
        removeDependents(tx, kind, id);
        tx.deleteWithContext(importing(), record);
        result.removed += 1;
      }
    });
    return result;
  });
}

/** True for users and rooms with messages written here. */
function hasOwnMessages(tx, kind, id) {
  const column = { users: "author", rooms: "room" }[kind];
  if (!column) return false;
  const sql = `SELECT EXISTS (SELECT 1 FROM messages WHERE ${column} = {:id} AND length(id) = ${OWN_ID}) value`;
  return query(tx, sql, { id }) === 1;
}

/** Removes most of a record's dependents by a few statements; the cascade takes about a millisecond for each record. */
function removeDependents(tx, kind, id) {
  for (const sql of DEPENDENTS[kind] ?? []) tx.nonconcurrentDB().newQuery(sql).bind({ id }).execute();
}

/** Announces the end of the import: gateways check all access again, and clients reload their rooms. */
function done(e) {
  return answer(e, () => {
    endBulk(e.app);
    const { EVERYTHING, isAnybodyThere } = require(`${__hooks}/gateway/access.js`);
    const { insert } = require(`${__hooks}/gateway/rows.js`);
    if (!isAnybodyThere(e.app)) return { rows: 0 };
    const rooms = query(e.app, "SELECT json_group_array(id) value FROM rooms WHERE deleted = FALSE", {});
    const reload = '{"action":"reload","collection":"messages","record":{"id":""}}';
    let [count, last] = [0, null];
    transaction(e.app, (tx) => {
      linkRequests(tx);
      for (let i = 0; i === 0 || i < rooms.length; i += 500) {
        const channels = rooms.slice(i, i + 500).map((id) => `room:${id}`);
        const access = i === 0 ? `,"access":${JSON.stringify(EVERYTHING)}` : "";
        last = insert(
          tx,
          `{"at":${Date.now()},"channels":${JSON.stringify(channels)},"data":${channels.length ? reload : "null"}${access}}`,
        );
        count += 1;
      }
    });
    if (last !== null) require(`${__hooks}/gateway/delivery.js`).deliver(e.app, last, null);
    return { rows: count };
  });
}

/** Names the friend request of each notification about one, as notify() does. */
function linkRequests(tx) {
  tx.db()
    .newQuery(
      `UPDATE notifications SET request = r.id FROM friend_requests r
       WHERE notifications.type = 'friend_request' AND notifications.request = ''
         AND r.\`from\` = notifications.\`from\` AND r.\`to\` = notifications.user`,
    )
    .execute();
}

module.exports = { state, rows, read, remove, done };
