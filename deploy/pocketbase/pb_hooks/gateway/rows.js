// The table of the outbox. Rows are appended in the transaction of their change, read by number, and trimmed after the
// gateway's confirmation.

const TABLE = "_gateway_outbox";

/** Maximum bytes in one request or answer; a single row may be larger. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Maximum bytes of a row. Larger rows, from older versions of these hooks, would exceed the gateway's timeout. */
const MAX_ROW_BYTES = 16 * 1024 * 1024;

/** Maximum rows deleted by one statement, which holds up all writes for a few milliseconds. */
const TRIM_ROWS = 1000;
/** Milliseconds between two statements, and for one call of `trim`; the gateway waits 3 s for the answer. */
const TRIM_PAUSE_MS = 2;
const TRIM_MS = 1000;

/** Key in the app's store: the name of this run of PocketBase. */
const BOOT = "gateway.boot";

/** Appends a row and returns its number; null before the table exists. */
function insert(tx, row) {
  try {
    return tx
      .nonconcurrentDB()
      .newQuery(`INSERT INTO ${TABLE} (created, event) VALUES ({:created}, {:event})`)
      .bind({ created: Date.now(), event: row })
      .execute()
      .lastInsertId();
  } catch (err) {
    if (!tx.hasTable(TABLE)) return null; // before the migration; PocketBase is not serving yet
    throw err;
  }
}

/**
 * Rows after the number `seq`, oldest first: at most `limit` rows and MAX_BYTES, but at least one row. Returns {last:
 * the highest number in `events` or 0, newest: the highest number in the table, events: the rows as JSON, separated by
 * commas}. A row above MAX_ROW_BYTES is replaced by its number with unreadable content: the gateway skips the row and
 * checks all access again.
 */
function after(app, seq, limit) {
  const rows = new DynamicModel({ last: 0, newest: 0, events: "" });
  app
    .db()
    .newQuery(
      `SELECT coalesce(max(seq), 0) last,
              (SELECT coalesce(max(seq), 0) FROM ${TABLE}) newest,
              coalesce(group_concat('{"seq":' || seq || ',' || substr(event, 2), ',' ORDER BY seq), '') events
       FROM (SELECT seq, event, octet_length(event) own, sum(octet_length(event)) OVER (ORDER BY seq) size
             FROM (SELECT seq, iif(octet_length(event) <= {:row}, event, '{"access":"too large"}') event FROM ${TABLE} WHERE seq > {:seq} ORDER BY seq LIMIT {:limit}))
       WHERE size <= {:bytes} OR size = own`,
    )
    .bind({ seq, limit, bytes: MAX_BYTES, row: MAX_ROW_BYTES })
    .one(rows);
  return rows;
}

/** The highest row number ever assigned, trimmed rows included. */
function last(app) {
  const row = new DynamicModel({ seq: 0 });
  app
    .db()
    .newQuery("SELECT coalesce(max(seq), 0) seq FROM sqlite_sequence WHERE name = {:table}")
    .bind({ table: TABLE })
    .one(row);
  return row.seq;
}

/** The name of this run of PocketBase. After a restart the data may be older, restored from a backup. */
function boot(app) {
  return app.store().getOrSet(BOOT, () => $security.randomString(16));
}

/**
 * Deletes confirmed rows of sufficient age, oldest first, in pieces of TRIM_ROWS rows for up to TRIM_MS, with time for
 * other writes in between. Returns {trimmed: number of deleted rows, more: whether the time was too short}. The row
 * `seq` stays: the gateway recognises the outbox by this row.
 */
function trim(app, seq, createdBefore) {
  const deadline = Date.now() + TRIM_MS;
  let trimmed = 0;
  while (Date.now() < deadline) {
    // Numbers have no gaps, so the upper bound on `seq` also limits the rows that are read. It is a single bound with
    // min(), since SQLite would use only the first of two bounds for the search. Lower numbers are older rows.
    const deleted = app
      .nonconcurrentDB()
      .newQuery(
        `DELETE FROM ${TABLE} WHERE created < {:young}
           AND seq < min({:seq}, (SELECT min(seq) FROM ${TABLE}) + {:rows})`,
      )
      .bind({ seq, young: createdBefore, rows: TRIM_ROWS })
      .execute()
      .rowsAffected();
    trimmed += deleted;
    if (deleted < TRIM_ROWS) return { trimmed, more: false };
    sleep(TRIM_PAUSE_MS);
  }
  return { trimmed, more: true };
}

module.exports = { TABLE, insert, after, last, boot, trim };
