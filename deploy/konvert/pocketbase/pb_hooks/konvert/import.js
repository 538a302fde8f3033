// The server side of konvert-migrate: writes rows unchanged, with the original times, and reads rows back.

const { refuse, answer, transaction, find, query } = require(`${__hooks}/konvert/call.js`);

/** Version of these routes; konvert-migrate refuses other versions. */
const VERSION = 1;

/** Kinds with many rows: inserted by one statement, after konvert-migrate has validated the rows. */
const BULK = {
  messages: [
    "room",
    "author",
    "content",
    "type",
    "mentions",
    "edited_at",
    "reply_to",
    "forwarded_from",
    "forwarded",
    "deleted",
  ],
  reactions: ["message", "user", "emoji"],
  room_members: ["room", "user", "role", "last_read", "hidden_at", "muted"],
  notifications: ["user", "type", "from", "room", "message", "content", "read"],
  poll_votes: ["poll", "user", "option"],
};

/** Length of ids that konvert-migrate derives, for records without an id in the old chat. */
const DERIVED_ID = 30;

/** Kinds that PocketBase validates, record by record. */
const RECORDS = ["users", "rooms", "polls", "pins", "friend_requests", "achievements", "room_keys", "files"];

/** The version, and the rows of each kind; with ?before=DATE, only rows created until then. */
function state(e) {
  return answer(e, () => {
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
    const force = e.request.url.query().get("force") === "1";
    const text = toString(e.request.body, 72 << 20);
    if (kind in BULK) return transaction(e.app, (tx) => bulk(tx, kind, text, force));
    const { Importer } = require(`${__hooks}/konvert/import_records.js`);
    return transaction(e.app, (tx) => new Importer(tx, kind, force).save(JSON.parse(text)));
  });
}

function bulk(tx, kind, text, force) {
  const columns = ["id", ...BULK[kind], "created", "updated"];
  const quoted = columns.map((c) => `\`${c}\``);
  const values = columns.map((c) => (c === "mentions" ? `coalesce(value->'${c}', '[]')` : `value->>'${c}'`));
  const rest = quoted.slice(1);
  const differs = `(${rest.map((c) => `${kind}.${c}`)}) IS NOT (${rest.map((c) => `excluded.${c}`)})`;
  const [{ total, before }] = [
    query(
      tx,
      `SELECT json_object('total', count(DISTINCT r.value->>'id'), 'before', count(DISTINCT t.id)) value FROM json_each({:rows}) r LEFT JOIN ${kind} t ON t.id = r.value->>'id'`,
      { rows: text },
    ),
  ];
  const affected = tx
    .nonconcurrentDB()
    .newQuery(
      `INSERT INTO ${kind} (${quoted}) SELECT ${values} FROM json_each({:rows}) WHERE TRUE
       ON CONFLICT (id) DO UPDATE SET ${rest.map((c) => `${c} = excluded.${c}`)}
         WHERE ${differs} AND (${force ? "TRUE" : `excluded.updated > ${kind}.updated`})
       ON CONFLICT DO NOTHING`,
    )
    .bind({ rows: text })
    .execute()
    .rowsAffected();
  const absent = query(
    tx,
    `SELECT json_group_array(r.value->>'id') value FROM json_each({:rows}) r WHERE NOT EXISTS (SELECT 1 FROM ${kind} t WHERE t.id = r.value->>'id')`,
    { rows: text },
  );
  const created = total - before - absent.length;
  const updated = affected - created;
  const reason = "PocketBase has another row with the same unique fields";
  return { created, updated, unchanged: before - updated, rejected: absent.map((id) => ({ id, reason })) };
}

/** Reads rows back: {ids, columns} → {rows}, objects in no order; a missing row is absent. */
function read(e) {
  return answer(e, () => {
    const kind = kindOf(e);
    const { ids, columns } = JSON.parse(toString(e.request.body, 72 << 20));
    if (!columns.every((c) => /^[a-z_]{1,40}$/i.test(c))) refuse.invalid("columns: names of fields.");
    const pairs = columns.map((c) => `'${c}', t.\`${c}\``);
    const sql = `SELECT json_group_array(json_object(${pairs})) value FROM json_each({:ids}) r JOIN ${kind} t ON t.id = r.value`;
    return { rows: query(e.app, sql, { ids: JSON.stringify(ids) }) };
  });
}

/**
 * Removes imported records that the old chat no longer has: {ids}, or {column, parents, keep}: all records of these
 * parents but those to keep. Records made by users in PocketBase have ids of another length and stay. Records that go with
 * a removed record are relayed as deleted.
 */
function remove(e) {
  return answer(e, () => {
    const kind = kindOf(e);
    const { importing } = require(`${__hooks}/konvert/import_records.js`);
    const { ids, column, parents, keep } = JSON.parse(toString(e.request.body, 72 << 20));
    if (column && !/^[a-z_]{1,40}$/.test(column)) refuse.invalid("column: the name of a field.");
    return transaction(e.app, (tx) => {
      const found =
        ids ??
        query(
          tx,
          `SELECT json_group_array(id) value FROM ${kind} WHERE \`${column}\` IN (SELECT value FROM json_each({:parents})) AND length(id) = ${DERIVED_ID} AND id NOT IN (SELECT value FROM json_each({:keep}))`,
          {
            parents: JSON.stringify(parents),
            keep: JSON.stringify(keep),
          },
        );
      let removed = 0;
      for (const id of found) {
        const record = find(tx, kind, "id = {:id}", { id });
        if (!record) continue;
        tx.deleteWithContext(importing(), record);
        removed += 1;
      }
      return { removed };
    });
  });
}

/** Announces the end of the import: gateways check all access again, and clients reload their rooms. */
function done(e) {
  return answer(e, () => {
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
