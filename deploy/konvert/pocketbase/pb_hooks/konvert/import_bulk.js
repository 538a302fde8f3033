// Imported rows of kinds with many records: a few statements for each batch, after validation by konvert-migrate.
// `jsonb_each` parses a batch once and returns the rows in SQLite's binary form; `json_each` would print a row again for
// each column.

const { query, transaction } = require(`${__hooks}/konvert/call.js`);

/** Columns by kind, without `id`, `created` and `updated`. */
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

/**
 * Size of the write-ahead log, in pages of 4 KB, at which SQLite copies the log into the database file and syncs both.
 * Nearly each new row changes pages of its own in the indexes, so that with SQLite's default every batch would copy
 * thousands of pages, most of them again for the next batch. The log keeps within PocketBase's limit of 200 MB. A crash
 * of PocketBase loses nothing; a power failure can lose the writes since the last sync, as always with PocketBase's
 * setting `synchronous=NORMAL`, and a repeated import restores the imported rows.
 */
const LOG = { importing: 50_000, usual: 1000 };

/** Columns with JSON; a missing value is an empty list. */
const JSON_COLUMNS = ["mentions"];

/**
 * Writes a JSON array of `count` rows. A new row replaces a different row with the same id if the new row has a later
 * `updated`, or always with `force`. Returns {created, updated, unchanged, rejected: [{id, reason}]}.
 */
function bulk(app, kind, text, count, force) {
  const sql = statements(kind, force);
  const rows = { rows: text };
  setLog(app, LOG.importing);
  return transaction(app, (tx) => {
    const run = (statement) => tx.nonconcurrentDB().newQuery(statement).bind(rows).execute().rowsAffected();
    const created = run(sql.insert);
    const result = { created, updated: 0, unchanged: 0, rejected: [] };
    if (created === count) return result; // a first import: all rows are new
    const { present, due } = query(tx, sql.compare, rows);
    if (due > 0) result.updated = run(sql.update);
    result.unchanged = present - created - result.updated;
    if (present === count) return result;
    const reason = "PocketBase has another row with the same unique fields, or a field is missing";
    result.rejected = query(tx, sql.absent, rows).map((id) => ({ id, reason }));
    return result;
  });
}

/** Sets the size of the log for PocketBase's only writing connection, until the connection ends or is set again. */
function setLog(app, pages) {
  app.nonconcurrentDB().newQuery(`PRAGMA wal_autocheckpoint = ${pages}`).execute();
}

/** Restores the usual size of the log after an import. */
const endBulk = (app) => setLog(app, LOG.usual);

function statements(kind, force) {
  const names = [...BULK[kind], "created", "updated"];
  const columns = names.map((name) => `\`${name}\``);
  const values = names.map((name) =>
    JSON_COLUMNS.includes(name) ? `coalesce(r.value->'${name}', '[]')` : `r.value->>'${name}'`,
  );
  const id = "r.value->>'id'";
  const differs = `(${columns.map((c) => `t.${c}`)}) IS NOT (${values})`;
  const due = force ? differs : `${differs} AND r.value->>'updated' > t.updated`;
  const joined = `FROM jsonb_each({:rows}) r JOIN ${kind} t ON t.id = ${id}`;
  return {
    // With OR IGNORE, SQLite keeps no copies of pages for undoing the statement alone.
    insert: `INSERT OR IGNORE INTO ${kind} (id, ${columns}) SELECT ${id}, ${values} FROM jsonb_each({:rows}) r`,
    compare: `SELECT json_object('present', count(*), 'due', count(*) FILTER (WHERE ${due})) value ${joined}`,
    update: `UPDATE OR IGNORE ${kind} AS t SET (${columns}) = (${values}) FROM jsonb_each({:rows}) r WHERE t.id = ${id} AND ${due}`,
    absent: `SELECT json_group_array(${id}) value FROM jsonb_each({:rows}) r WHERE NOT EXISTS (SELECT 1 FROM ${kind} t WHERE t.id = ${id})`,
  };
}

module.exports = { BULK, bulk, endBulk };
