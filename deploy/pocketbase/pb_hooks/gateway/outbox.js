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

/** Channels of one row; more are split over several. The gateway takes 1,000, of 1,024 bytes each. */
const MAX_CHANNELS = 500;

/** Under this key an event's context carries its row from here to the delivery. */
const ROW = "gateway.row";

/** Under this key the app's store has the name of this run. */
const BOOT = "gateway.boot";

/** Under this key the app's store has the number of the newest row, or of one just before it. */
const NEWEST = "gateway.newest";

/** The app's store, which transactions share. */
const store = $app.store();
const NONE = [];

const create = (e) => write(e, created);
const update = (e) => write(e, updated);
const remove = (e) => write(e, removed);

// Each of these goes on with the event and writes its rows.

function created(e, tx, { relayed, templates, triggers, told }) {
  e.next();
  const { record } = e;
  const names = relayed ? channels.of(new Relations(tx), record, refuse, templates) : NONE;
  const changes = relayed || told ? [[names, "create", record]] : NONE;
  append(tx, changes, access.created(triggers, record), told && updates.of(tx, record));
}

function updated(e, tx, { relayed, triggers, told, steps }) {
  // Not record.original(), which is stale in an instance that is saved a second time.
  const original = stored(tx, e.record);
  e.next();
  if (!original) return; // nothing was there to be updated
  const { record } = e;
  const changes = relayed ? moves(tx, record, original) : [];
  // A row of its own where the record left channels: what it says of them is no update.
  if (told && (changes.length !== 1 || changes[0][1] !== "update")) changes.unshift([[], "update", record]);
  if (steps.length > 0) changes.push(...dependents.moved(tx, steps, record, original, refuse));
  append(tx, changes, access.updated(triggers, record, original), told && updates.of(tx, record, original));
}

function removed(e, tx, { relayed, triggers, told, steps }) {
  const record = stored(tx, e.record);
  if (!record) return e.next(); // somebody else has deleted it before
  // Before the cascade, which takes away what the paths lead through.
  const names = relayed ? channels.of(new Relations(tx, NONE), record, refuse) : NONE;
  if (steps.length > 0) whileDeleting(tx, record, () => e.next());
  else e.next();
  const changes = relayed || told ? [[names, "delete", record]] : NONE;
  append(tx, changes, access.deleted(triggers, record), told && updates.of(tx, record));
}

/** Goes on with a record event: by `work`, in a transaction, if the gateway could want to know of it. */
function write(e, work) {
  const { app, record } = e;
  notice(app);
  const collection = record.tableName(); // its name, for less than record.collection().name costs
  const { interests } = schema.current(app);
  let interest = interests.get(collection);
  if (interest === undefined) interests.set(collection, (interest = interestIn(app, record.collection())));
  if (interest === null) return e.next();
  begin(app, collection);
  try {
    app.runInTransaction((tx) => {
      e.app = tx;
      schema.hold(tx);
      work(e, tx, interest);
    });
  } finally {
    schema.release();
    e.app = app; // what comes after the commit must not use the finished transaction
  }
  handOver(e);
}

// The write under way in this JavaScript engine; never more than one.

/** Where it goes on, and its collection. */
let under = { app: null, collection: null };
/** Names that no channel can have. They are left out, counted for the gateway, and logged. */
let refused = null;
/** Its last row, as {seq, event}. */
let kept = null;

function begin(app, collection) {
  under = { app, collection };
  refused = null;
  kept = null;
}

/** Hands the last row over to the delivery, after the commit. */
function handOver(e) {
  if (kept === null) return;
  e.context = new Context(e.context, ROW, kept);
  store.set(NEWEST, kept.seq);
}

function refuse(template, name) {
  refused ??= new Set();
  if (refused.has(name)) return;
  refused.add(name);
  const { app, collection } = under;
  warn(app, `channel.${collection}.${template}`, "a channel template yields a name that no channel can have: " +
    "it needs the template's namespace and a colon, at most 1,024 bytes, and no blanks or control characters",
    "collection", collection, "template", template);
}

/** What the gateway could want to know of writes in a collection; null if nothing. */
function interestIn(app, { id, name }) {
  const templates = channels.templates(app, name);
  const relayed = templates.length > 0;
  const triggers = access.triggers(app, name);
  const told = updates.tells(app, name);
  const steps = dependents.steps(app, id);
  return relayed || told || triggers.length > 0 || steps.length > 0 ? { relayed, templates, triggers, told, steps } : null;
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
function moves(tx, record, original) {
  const now = channels.of(new Relations(tx), record, refuse);
  if (!channels.moved(tx, record, original)) return [[now, "update", record]];
  const before = channels.of(new Relations(tx, [original]), original, refuse);
  const entered = channels.without(now, before);
  return [
    [channels.without(before, now), "delete", original],
    [channels.without(now, entered), "update", record],
    [entered, "create", record],
  ];
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
  begin(e.app, e.collection.name);
  joinTransaction(e, (tx) => {
    e.next();
    schema.forget(tx);
    listen(tx);
    if ((concerned || access.concerns(tx, e.collection)) && access.isAnybodyThere(tx)) append(tx, NONE, access.EVERYTHING, false);
  });
  handOver(e);
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
function append(tx, changes, scopes, told) {
  let first = true;
  for (let i = 0; i < changes.length; i++) {
    const [names, action, record] = changes[i];
    if (names.length === 0 && !(told && i === 0)) continue;
    const data = event(tx, action, record);
    const rows = parts(names);
    for (let j = 0; j < rows.length; j++) {
      keep(tx, rows[j], data, first ? besides(scopes, told) : "");
      first = false;
    }
  }
  if (first && (scopes.length > 0 || refused)) keep(tx, NONE, "null", besides(scopes, told));
}

/** What the first row of a write has besides channels and data. */
function besides(scopes, told) {
  const access = scopes.length > 0 ? `,"access":${JSON.stringify(scopes)}` : "";
  const updated = told ? `,"updates":${JSON.stringify(told)}` : "";
  return access + updated + (refused ? `,"dropped":${refused.size}` : "");
}

/** Channels in parts that one row may have. */
function parts(names) {
  if (names.length <= MAX_CHANNELS) return [names];
  const count = Math.ceil(names.length / MAX_CHANNELS);
  return Array.from({ length: count }, (_, i) => names.slice(i * MAX_CHANNELS, (i + 1) * MAX_CHANNELS));
}

/** Writes a row, and keeps it for the delivery after the commit. */
function keep(tx, names, data, besides) {
  const row = `"at":${Date.now()},"channels":${JSON.stringify(names)},"data":${data}${besides}}`;
  const seq = insert(tx, `{${row}`);
  if (seq !== null) kept = { seq, event: `{"seq":${seq},${row}` };
}

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

/** The (last) row that this event wrote, as {seq, event}; null if it wrote none. */
function rowOf(e) {
  return e.context.value(ROW);
}

/** Whether there is most likely no row after this one. */
function isNewest(seq) {
  return newest() === seq;
}

/** The number of the newest row, or of one just before it; 0 before the first row of this run. */
function newest() {
  return store.get(NEWEST) || 0;
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
  newest,
  after,
  last,
  boot,
  trim,
};
