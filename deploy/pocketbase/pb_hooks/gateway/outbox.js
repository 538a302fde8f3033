// The outbox: one row per change, written in the transaction of the change itself. A change that was
// committed has its row, one that was rolled back has none, and the row's number has no gaps.
//
//   {"at":…,"channels":[…],"data":{"action","collection","record"},"access":[…],"updates":{…},"dropped":n}
//
// `at` is the time of the row in Unix milliseconds. `access` is there if the change may have changed who may subscribe to what (see access.js). Where nothing
// is relayed, there are no channels and `data` is null. `updates` is there if the record is one of which updates
// channels tell (see updates.js). `dropped` counts channels that were left out since none can have such a name.

const access = require(`${__hooks}/gateway/access.js`);
const channels = require(`${__hooks}/gateway/channels.js`);
const dependents = require(`${__hooks}/gateway/dependents.js`);
const listening = require(`${__hooks}/gateway/listening.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const updates = require(`${__hooks}/gateway/updates.js`);
const { event } = require(`${__hooks}/gateway/export.js`);
const { warn } = require(`${__hooks}/gateway/notice.js`);
const { Relations, whileDeleting } = require(`${__hooks}/gateway/relations.js`);
const { joinTransaction } = require(`${__hooks}/gateway/transaction.js`);

const TABLE = "_gateway_outbox";

/** The most that leaves in one request or answer; a single row may be larger. */
const MAX_BYTES = 4 * 1024 * 1024;
/** Larger rows, as older versions of these hooks could write them, cannot be handed over in time. */
const MAX_ROW_BYTES = 16 * 1024 * 1024;

/** Channels of one row; more are split over several. The gateway takes 1,000, of 255 bytes each. */
const MAX_CHANNELS = 500;

/** Under this key an event's context carries its row from here to the delivery. */
const ROW = "gateway.row";

/** Under this key the app's store has the name of this run. */
const BOOT = "gateway.boot";

/** Under this key the app's store has the number of the row that was written last, committed or not. */
const NEWEST = "gateway.newest";

function create(e) {
  write(e, (tx, { relayed, triggers, told }, refused) => {
    e.next();
    const { record } = e;
    const changes = relayed || told ? [[channels.of(new Relations(tx), record, refused.add), "create", record]] : [];
    append(e, tx, changes, { scopes: access.created(triggers, record), told: told && updates.of(tx, record), refused });
  });
}

function update(e) {
  write(e, (tx, { relayed, triggers, told, steps }, refused) => {
    // Not record.original(), which is stale in an instance that is saved a second time.
    const original = stored(tx, e.record);
    e.next();
    if (!original) return; // nothing was there to be updated
    const { record } = e;
    const changes = relayed ? moves(tx, record, original, refused) : [];
    // A row of its own where the record left channels: what it says of them is no update.
    if (told && (changes.length !== 1 || changes[0][1] !== "update")) changes.unshift([[], "update", record]);
    if (steps.length > 0) changes.push(...dependents.moved(tx, steps, record, original, refused.add));
    const scopes = access.updated(triggers, record, original);
    append(e, tx, changes, { scopes, told: told && updates.of(tx, record, original), refused });
  });
}

function remove(e) {
  write(e, (tx, { relayed, triggers, told, steps }, refused) => {
    const record = stored(tx, e.record);
    if (!record) return e.next(); // somebody else has deleted it before
    // Before the cascade, which takes away what the paths lead through.
    const names = relayed ? channels.of(new Relations(tx, []), record, refused.add) : [];
    if (steps.length > 0) whileDeleting(tx, record, () => e.next());
    else e.next();
    const changes = relayed || told ? [[names, "delete", record]] : [];
    append(e, tx, changes, { scopes: access.deleted(triggers, record), told: told && updates.of(tx, record), refused });
  });
}

/** Goes on with a record event: by `work`, in a transaction, if the gateway could want to know of it. */
function write(e, work) {
  const { app, record } = e;
  notice(app);
  const collection = record.tableName(); // its name, for less than record.collection().name costs
  const interest = schema.remembered(app, collection, () => interestIn(app, record.collection()));
  if (interest === null) return e.next();
  joinTransaction(e, (tx) => work(tx, interest, new Refused(tx, collection)));
}

/** What the gateway could want to know of writes in a collection; null if nothing. */
function interestIn(app, { id, name }) {
  const relayed = channels.relays(app, name);
  const triggers = access.triggers(app, name);
  const told = updates.tells(app, name);
  const steps = dependents.steps(app, id);
  return relayed || told || triggers.length > 0 || steps.length > 0 ? { relayed, triggers, told, steps } : null;
}

/** Has the writes of all collections of interest pass through our hooks; to be called when a collection has changed. */
function listen(app) {
  const wanted = app.findAllCollections().filter((collection) => interestIn(app, collection) !== null);
  listening.ensure(app, wanted.map(({ id }) => id));
}

/** The record's row as it is in this transaction; null if there is none. */
function stored(tx, record) {
  try {
    return tx.findRecordById(record.tableName(), record.lastSavedPK());
  } catch {
    return null;
  }
}

/** A record that moved vanishes from the channels that it left and appears in the new ones. */
function moves(tx, record, original, refused) {
  const now = channels.of(new Relations(tx), record, refused.add);
  if (!channels.moved(tx, record, original)) return [[now, "update", record]];
  const before = channels.of(new Relations(tx, [original]), original, refused.add);
  const entered = channels.without(now, before);
  return [
    [channels.without(before, now), "delete", original],
    [channels.without(now, entered), "update", record],
    [entered, "create", record],
  ];
}

/** The names of one write that no channel can have. They are left out, counted for the gateway, and logged. */
class Refused {
  constructor(app, collection) {
    this.names = new Set();
    this.add = (template, name) => {
      if (this.names.has(name)) return;
      this.names.add(name);
      warn(app, `channel.${collection}.${template}`, "a channel template yields a name that no channel can have: " +
        "it needs the template's namespace and a colon, and at most 255 characters of visible ASCII",
        "collection", collection, "template", template);
    };
  }
}

/**
 * Has everything checked anew if another process has changed collections, as `pocketbase migrate up`
 * does: what is written after it is then seen only by those whom the new rules let in.
 */
function notice(app) {
  if (!schema.isUntold(app)) return;
  listen(app);
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
  joinTransaction(e, (tx) => {
    e.next();
    schema.forget(tx);
    listen(tx);
    if ((concerned || access.concerns(tx, e.collection)) && access.isAnybodyThere(tx)) {
      append(e, tx, [], { scopes: access.EVERYTHING });
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
 * Writes rows for each change, [channels, action, record], that goes anywhere. The scopes are in the first, so that
 * who has lost his access gets none of them; and so is, where updates channels are `told` of the record, what they need.
 */
function append(e, tx, changes, { scopes, told, refused }) {
  const rows = changes
    .filter(([names], i) => names.length > 0 || (told && i === 0))
    .flatMap(([names, ...change]) => {
      const data = event(tx, ...change);
      return parts(names).map((part) => [part, data]);
    });
  const dropped = refused ? refused.names.size : 0;
  if (rows.length === 0 && (scopes.length > 0 || dropped > 0)) rows.push([[], "null"]);
  rows.forEach(([names, data], i) => {
    const access = i === 0 && scopes.length > 0 ? `,"access":${JSON.stringify(scopes)}` : "";
    const updated = i === 0 && told ? `,"updates":${JSON.stringify(told)}` : "";
    const left = i === 0 && dropped > 0 ? `,"dropped":${dropped}` : "";
    keep(e, tx, `{"channels":${JSON.stringify(names)},"data":${data}${access}${updated}${left}}`);
  });
}

/** Channels in parts that one row may have. */
function parts(names) {
  if (names.length <= MAX_CHANNELS) return [names];
  const count = Math.ceil(names.length / MAX_CHANNELS);
  return Array.from({ length: count }, (_, i) => names.slice(i * MAX_CHANNELS, (i + 1) * MAX_CHANNELS));
}

/** Keeps a row for the delivery after the commit. */
function keep(e, tx, event) {
  const row = `{"at":${Date.now()},${event.slice(1)}`;
  const seq = insert(tx, row);
  if (seq !== null) e.context = new Context(e.context, ROW, { seq, event: `{"seq":${seq},${row.slice(1)}` });
}

/** Appends a row and returns its number; null before the table exists. */
function insert(tx, row) {
  let seq;
  try {
    seq = tx
      .nonconcurrentDB()
      .newQuery(`INSERT INTO ${TABLE} (created, event) VALUES ({:created}, {:event})`)
      .bind({ created: Date.now(), event: row })
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

/**
 * The rows after `seq`, oldest first, as many as fit into `limit` and MAX_BYTES but at least one:
 * {last: the highest number or 0, events: their JSON, comma-separated}. Of a row above MAX_ROW_BYTES only the number
 * is given, in a form that the gateway cannot read: it skips the row and checks all access anew.
 */
function after(app, seq, limit) {
  const rows = new DynamicModel({ last: 0, events: "" });
  app
    .db()
    .newQuery(
      `SELECT coalesce(max(seq), 0) last,
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

module.exports = {
  TABLE,
  everything,
  create,
  update,
  remove,
  listen,
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
