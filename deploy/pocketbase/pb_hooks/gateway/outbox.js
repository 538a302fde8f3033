// The outbox: one row per change, written in the transaction of the change itself. A change that was
// committed has its row, one that was rolled back has none, and the row's number has no gaps.
//
//   {"channels":[…],"data":{"action","collection","record"},"access":[…],"updates":{…}}
//
// `access` is there if the change may have changed who may subscribe to what (see access.js). Where nothing
// is relayed, there are no channels and `data` is null. `updates` is there if the record is one of which updates
// channels tell (see updates.js).

const access = require(`${__hooks}/gateway/access.js`);
const channels = require(`${__hooks}/gateway/channels.js`);
const listening = require(`${__hooks}/gateway/listening.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const updates = require(`${__hooks}/gateway/updates.js`);
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

function create(e) {
  write(e, (tx, { relayed, triggers, told }) => {
    const changes = relayed || told ? [[channels.of(tx, e.record), "create", e.record]] : [];
    append(e, tx, changes, access.created(triggers, e.record), told);
  });
}

function update(e) {
  write(e, (tx, { relayed, triggers, told, original }) => {
    const changes = relayed ? moves(tx, e.record, original) : [];
    // A row of its own where the record left channels: what it says of them is no update.
    if (told && (changes.length !== 1 || changes[0][1] !== "update")) changes.unshift([[], "update", e.record]);
    append(e, tx, changes, access.updated(triggers, e.record, original), told);
  });
}

function remove(e) {
  write(e, (tx, { relayed, triggers, told }) => {
    const changes = relayed || told ? [[channels.of(tx, e.record), "delete", e.record]] : [];
    append(e, tx, changes, access.deleted(triggers, e.record), told);
  });
}

/** Goes on with a record event, and with `then` in the same transaction if the gateway could want to know of it. */
function write(e, then) {
  const { app } = e;
  notice(app);
  const collection = e.record.tableName(); // its name, for less than record.collection().name costs
  const interest = schema.remembered(app, collection, () => interestIn(app, collection));
  if (interest === null) return e.next();
  listening.ensure(app, collection);
  const original = e.record.original();
  inTransaction(e, (tx) => then(tx, { ...interest, original }));
}

/** What the gateway could want to know of writes in a collection; null if nothing. */
function interestIn(app, collection) {
  const relayed = channels.relays(app, collection);
  const triggers = access.triggers(app, collection);
  const told = updates.tells(app, collection);
  return relayed || told || triggers.length > 0 ? { relayed, triggers, told } : null;
}

/** A record that moved vanishes from the channels that it left and appears in the new ones. */
function moves(tx, record, original) {
  const now = channels.of(tx, record);
  if (!channels.moved(tx, record, original)) return [[now, "update", record]];
  const before = channels.of(tx, original);
  return [
    [before.filter((name) => !now.includes(name)), "delete", original],
    [now.filter((name) => before.includes(name)), "update", record],
    [now.filter((name) => !before.includes(name)), "create", record],
  ];
}

/**
 * Has everything checked anew if another process has changed collections, as `pocketbase migrate up`
 * does: what is written after it is then seen only by those whom the new rules let in.
 */
function notice(app) {
  if (!schema.isUntold(app)) return;
  everything(app);
  // A transaction may be rolled back, and this row with it: then the next write tells of it once more.
  if (!app.isTransactional()) schema.told(app);
}

/** Writes a row that has everybody's access checked anew. */
function everything(app) {
  insert(app, `{"channels":[],"data":null,"access":${JSON.stringify(access.EVERYTHING)}}`);
}

/** Goes on with a change of a collection by this process. */
function collection(e) {
  const concerned = access.concerns(e.app, e.collection);
  inTransaction(e, (tx) => {
    schema.forget(tx);
    if ((concerned || access.concerns(tx, e.collection)) && access.isAnybodyThere(tx)) {
      append(e, tx, [], access.EVERYTHING);
    }
  });
}

/** A change of a collection by this process is committed; its row is there. */
function collectionCommitted(e) {
  schema.told(e.app);
}

/** A change of a collection by this process was rolled back. */
function collectionRestored(e) {
  schema.forget(e.app);
  return e.next();
}

/**
 * Writes a row for each change, [channels, action, record], that goes anywhere. The scopes are in the first, so that
 * who has lost his access gets none of them; and so is, where updates channels are `told` of the record, what they need.
 */
function append(e, tx, changes, scopes, told) {
  const rows = changes
    .filter(([names], i) => names.length > 0 || (told && i === 0))
    .map(([names, ...change]) => [names, json(...change)]);
  if (rows.length === 0 && scopes.length > 0) rows.push([[], "null"]);
  rows.forEach(([names, data], i) => {
    const access = i === 0 && scopes.length > 0 ? `,"access":${JSON.stringify(scopes)}` : "";
    const updated = i === 0 && told ? `,"updates":${JSON.stringify(updates.of(tx, e.record))}` : "";
    keep(e, tx, `{"channels":${JSON.stringify(names)},"data":${data}${access}${updated}}`);
  });
}

/** What subscribers get. The fresh copy has nothing of what other hooks may have unhidden or expanded. */
function json(action, record) {
  const collection = record.collection().name;
  return `{"action":"${action}","collection":"${collection}","record":${JSON.stringify(record.fresh())}}`;
}

/** Keeps a row for the delivery after the commit. */
function keep(e, tx, event) {
  const seq = insert(tx, event);
  if (seq !== null) e.context = new Context(e.context, ROW, { seq, event: `{"seq":${seq},${event.slice(1)}` });
}

/** Appends a row and returns its number; null before the table exists. */
function insert(tx, event) {
  let seq;
  try {
    seq = tx
      .nonconcurrentDB()
      .newQuery(`INSERT INTO ${TABLE} (created, event) VALUES ({:created}, {:event})`)
      .bind({ created: Date.now(), event })
      .execute()
      .lastInsertId();
  } catch (err) {
    if (!tx.hasTable(TABLE)) return null; // its migration has not run yet; PocketBase is not serving either
    throw err;
  }
  tx.store().set(NEWEST, seq);
  return seq;
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

module.exports = {
  TABLE,
  everything,
  create,
  update,
  remove,
  notice,
  collection,
  collectionCommitted,
  collectionRestored,
  rowOf,
  isNewest,
  after,
  last,
  boot,
  trim,
};
