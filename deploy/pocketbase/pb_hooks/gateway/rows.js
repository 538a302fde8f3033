// The outbox's table: rows are appended in the transaction of the change that they tell of, read by their numbers, and
// trimmed once the gateway has confirmed them.

const TABLE = "_gateway_outbox";

/** The most that leaves in one request or answer; a single row may be larger. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Larger rows, as older versions of these hooks could write them, cannot be handed over in time. */
const MAX_ROW_BYTES = 16 * 1024 * 1024;

/** Under this key the app's store has the name of this run. */
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
    if (!tx.hasTable(TABLE)) return null; // its migration has not run yet; PocketBase is not serving either
    throw err;
  }
}

/**
 * Rows after the number `seq`, oldest first: as many as fit into `limit` rows and MAX_BYTES, but at least one. Returns
 * {last: the highest number among them or 0, newest: the highest number in the table, events: their JSON, separated by
 * commas}. A row above MAX_ROW_BYTES is given as its number alone, in a form that the gateway cannot read: the gateway
 * skips the row and checks all access anew.
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

/** The highest number ever given, trimmed rows included. */
function last(app) {
  const row = new DynamicModel({ seq: 0 });
  app
    .db()
    .newQuery("SELECT coalesce(max(seq), 0) seq FROM sqlite_sequence WHERE name = {:table}")
    .bind({ table: TABLE })
    .one(row);
  return row.seq;
}

/** Names this run of PocketBase: after a restart the data may be others, restored from a backup. */
function boot(app) {
  return app.store().getOrSet(BOOT, () => $security.randomString(16));
}

/**
 * Deletes what is confirmed and old enough, and says how many rows that were. The row at `seq` stays: by it
 * the gateway recognises the outbox.
 */
function trim(app, seq, createdBefore) {
  // Rows grow older with falling numbers, so the first young one ends the search.
  return app
    .nonconcurrentDB()
    .newQuery(
      `DELETE FROM ${TABLE} WHERE seq < {:seq} AND seq < coalesce(
         (SELECT seq FROM ${TABLE} WHERE created >= {:young} ORDER BY seq LIMIT 1), {:seq})`,
    )
    .bind({ seq, young: createdBefore })
    .execute()
    .rowsAffected();
}

module.exports = { TABLE, insert, after, last, boot, trim };
