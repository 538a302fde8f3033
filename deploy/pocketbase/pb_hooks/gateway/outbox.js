// The outbox: one row per change, written in the transaction of the change itself. A change that was
// committed has its row, one that was rolled back has none, and the row's number has no gaps.

const channels = require(`${__hooks}/gateway/channels.js`);
const { inTransaction } = require(`${__hooks}/gateway/transaction.js`);

const TABLE = "_gateway_outbox";

/** The most that leaves in one request or answer; a single row may be larger. */
const MAX_BYTES = 4 * 1024 * 1024;

/** Under this key an event's context carries its row from here to the delivery. */
const ROW = "gateway.row";

/** Under this key the app's store has the name of this run. */
const BOOT = "gateway.boot";

/** Under this key the app's store has the number of the row that was written last, committed or not. */
const NEWEST = "gateway.newest";

function append(e, tx, names, action, record) {
  if (names.length === 0) return;
  const collection = record.collection().name;
  const data = `{"action":"${action}","collection":"${collection}","record":${JSON.stringify(record)}}`;
  const event = `{"channels":${JSON.stringify(names)},"data":${data}}`;
  const seq = tx
    .nonconcurrentDB()
    .newQuery(`INSERT INTO ${TABLE} (created, event) VALUES ({:created}, {:event})`)
    .bind({ created: Date.now(), event })
    .execute()
    .lastInsertId();
  tx.store().set(NEWEST, seq);
  e.context = new Context(e.context, ROW, { seq, event: `{"seq":${seq},${event.slice(1)}` });
}

function create(e) {
  inTransaction(e, (tx) => append(e, tx, channels.of(tx, e.record), "create", e.record));
}

function update(e) {
  const original = e.record.original();
  inTransaction(e, (tx) => {
    const now = channels.of(tx, e.record);
    if (!channels.moved(e.record, original)) {
      append(e, tx, now, "update", e.record);
      return;
    }
    // The record moved: it vanishes from the channels that it left and appears in the new ones.
    const before = channels.of(tx, original);
    append(e, tx, before.filter((name) => !now.includes(name)), "delete", original);
    append(e, tx, now.filter((name) => before.includes(name)), "update", e.record);
    append(e, tx, now.filter((name) => !before.includes(name)), "create", e.record);
  });
}

function remove(e) {
  inTransaction(e, (tx) => append(e, tx, channels.of(tx, e.record), "delete", e.record));
}

/** The (last) row that this event wrote, as {seq, event}; null if it wrote none. */
function rowOf(e) {
  return e.context.value(ROW);
}

/** Whether no row has been written after this one. */
function isNewest(app, seq) {
  return app.store().get(NEWEST) === seq;
}

/** The rows after `seq`, oldest first, as many as fit into `limit` and MAX_BYTES but at least one: {last: the highest number or 0, events: their JSON, comma-separated}. */
function after(app, seq, limit) {
  const rows = new DynamicModel({ last: 0, events: "" });
  app
    .db()
    .newQuery(
      `SELECT coalesce(max(seq), 0) last,
              coalesce(group_concat('{"seq":' || seq || ',' || substr(event, 2), ',' ORDER BY seq), '') events
       FROM (SELECT seq, event, octet_length(event) own, sum(octet_length(event)) OVER (ORDER BY seq) size
             FROM (SELECT seq, event FROM ${TABLE} WHERE seq > {:seq} ORDER BY seq LIMIT {:limit}))
       WHERE size <= {:bytes} OR size = own`,
    )
    .bind({ seq, limit, bytes: MAX_BYTES })
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

module.exports = { TABLE, create, update, remove, rowOf, isNewest, after, last, boot, trim };
