// The outbox: one row per change, written in the transaction of the change. A committed change has a row, a change that
// was rolled back has none, and the row numbers have no gaps.
//
//   {"at":…,"channels":[…],"data":{"action","collection","record"},"access":[…],"updates":{…},"dropped":n}
//
//   at        time of the row in Unix milliseconds
//   channels  empty if the change is not relayed; then `data` is null unless the row has `updates`
//   access    present if the write may have changed access to channels (see access.js)
//   updates   present if updates channels cover the record's collection (see updates.js)
//   dropped   number of channels that were left out because of an impossible name

const access = require(`${__hooks}/gateway/access.js`);
const channels = require(`${__hooks}/gateway/channels.js`);
const dependents = require(`${__hooks}/gateway/dependents.js`);
const listening = require(`${__hooks}/gateway/listening.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const updates = require(`${__hooks}/gateway/updates.js`);
const { event } = require(`${__hooks}/gateway/export.js`);
const { warn } = require(`${__hooks}/gateway/notice.js`);
const { Relations, whileDeleting } = require(`${__hooks}/gateway/relations.js`);
const { insert } = require(`${__hooks}/gateway/rows.js`);
const { delivered, committed } = require(`${__hooks}/gateway/after.js`);
const { joinTransaction } = require(`${__hooks}/gateway/transaction.js`);

/** Maximum channels of a row; more channels take several rows. The gateway accepts 1,000, of 1,024 bytes each. */
const MAX_CHANNELS = 500;

/** Key in an event's context: true for records of an import, which the import announces as a whole at its end. */
const IMPORT = "gateway.import";

const NONE = [];

const create = (e) => write(e, created);
const update = (e) => write(e, updated);
const remove = (e) => write(e, removed);

// `created`, `updated` and `removed` continue the record event and write its rows. Here and in the called functions,
// loops and functions are plain: closures and iterators take far longer in PocketBase's JavaScript engine, and all
// writes of the server wait meanwhile.

function created(e, tx, { relayed, templates, triggers, told }) {
  e.next();
  const { record } = e;
  const names = relayed ? channels.of(new Relations(tx), record, refuse, templates) : NONE;
  const changes = relayed || told ? [[names, "create", record]] : NONE;
  append(tx, changes, access.created(triggers, record), told && updates.of(tx, record));
}

function updated(e, tx, { relayed, templates, triggers, told, steps }) {
  // Not record.original(), which is out of date when an instance is saved a second time.
  const original = stored(tx, e.record);
  e.next();
  if (!original) return; // the record did not exist
  const { record } = e;
  const changes = relayed ? moves(tx, record, original, templates) : [];
  // Updates channels get a separate row if the record left channels: the data for the left channels is no update.
  if (told && (changes.length !== 1 || changes[0][1] !== "update")) changes.unshift([[], "update", record]);
  if (steps.length > 0) changes.push(...dependents.moved(tx, steps, record, original, refuse));
  append(tx, changes, access.updated(triggers, record, original), told && updates.of(tx, record, original));
}

function removed(e, tx, { relayed, templates, triggers, told, steps }) {
  const record = stored(tx, e.record);
  if (!record) return e.next(); // another write has deleted the record
  // Before the cascade, which deletes records on the templates' paths.
  const names = relayed ? channels.of(new Relations(tx, NONE), record, refuse, templates) : NONE;
  if (steps.length > 0) whileDeleting(tx, record, () => e.next());
  else e.next();
  const changes = relayed || told ? [[names, "delete", record]] : NONE;
  append(tx, changes, access.deleted(triggers, record), told && updates.of(tx, record));
}

/** The only current write of this JavaScript engine: {app, collection, refused: impossible names, kept: row}. */
let under = null;

/** Continues a record event. If the write matters to the gateway, `work` continues the event in a transaction. */
function write(e, work) {
  if (e.context && e.context.value(IMPORT)) return e.next();
  const { app, record } = e;
  notice(app);
  const collection = record.tableName(); // the name; cheaper than record.collection().name
  if (interestOf(app, schema.latest(app), collection, record) === null) return e.next();
  under = { app, collection, refused: null, kept: null };
  joinTransaction(e, (tx) => {
    // Looked up again: a rule may have been edited while the write waited for the transaction.
    const interest = interestOf(tx, schema.current(tx), collection, record);
    if (interest === null) e.next();
    else work(e, tx, interest);
  });
  if (under.kept) delivered(e, app, collection, under.kept);
}

/** Counts and logs an impossible channel name; the channel is left out. */
function refuse(template, name) {
  const { app, collection } = under;
  under.refused ??= new Set();
  if (under.refused.has(name)) return;
  under.refused.add(name);
  const message =
    "a channel template yields a name that no channel can have, and the change is not sent there: " +
    "a name begins with the template's namespace and a colon, and has at most 1,024 bytes without blanks and control characters";
  warn(app, `channel.${collection}.${template}`, message, { collection, template });
}

/** The result of interestIn, cached with the schema. */
function interestOf(app, { interests }, collection, record) {
  let interest = interests.get(collection);
  if (interest === undefined) {
    interest = interestIn(app, record.collection());
    interests.set(collection, interest);
  }
  return interest;
}

/** The parts of the schema about writes in a collection; null if the collection does not matter to the gateway. */
function interestIn(app, { id, name }) {
  const templates = channels.templates(app, name);
  const relayed = templates.length > 0;
  const triggers = access.triggersOf(app, name);
  const told = updates.tells(app, name);
  const steps = dependents.stepsOf(app, id);
  return relayed || told || triggers.length > 0 || steps.length > 0
    ? { relayed, templates, triggers, told, steps }
    : null;
}

/** Registers the hooks of all collections that matter to the gateway. To be called after a change of a collection. */
function listen(app) {
  const wanted = app.findAllCollections().filter((collection) => interestIn(app, collection) !== null);
  listening.ensure(wanted.map(({ id }) => id));
}

/** The record's row in the transaction; null without a row. */
function stored(tx, record) {
  try {
    return tx.findRecordById(record.tableName(), record.lastSavedPK());
  } catch {
    return null;
  }
}

/** An update as changes: "delete" for channels that the record left, "create" for new channels, else "update". */
function moves(tx, record, original, templates) {
  const now = channels.of(new Relations(tx), record, refuse, templates);
  if (!channels.moved(tx, record, original)) return [[now, "update", record]];
  const before = channels.of(new Relations(tx, [original]), original, refuse, templates);
  const entered = channels.without(now, before);
  return [
    [channels.without(before, now), "delete", original],
    [channels.without(now, entered), "update", record],
    [entered, "create", record],
  ];
}

/**
 * Requests a check of all access if another process has changed collections, as `pocketbase migrate up` does. Later
 * writes are then delivered to users with access by the new rules only.
 */
function notice(app) {
  if (!schema.isUntold(app)) return;
  listen(app);
  everything(app);
  // A rollback of the application's own transaction would take the row along; then the next write adds the row again.
  if (!app.isTransactional()) schema.told(app);
}

/** Writes a row that requests a check of all access. */
function everything(app) {
  return insert(app, `{"channels":[],"data":null,"access":${JSON.stringify(access.EVERYTHING)}}`);
}

/** Continues a change of a collection by this process. */
function collectionChanged(e) {
  const concerned = access.concerns(e.app, e.collection);
  joinTransaction(e, (tx) => {
    under = { app: tx, collection: e.collection.name, refused: null, kept: null };
    e.next();
    schema.forget();
    listen(tx);
    if ((concerned || access.concerns(tx, e.collection)) && access.isAnybodyThere(tx))
      append(tx, NONE, access.EVERYTHING, false);
  });
  if (under.kept) delivered(e, e.app, null, under.kept);
}

/** Called after the commit of a collection's change and its row. */
function collectionCommitted(e) {
  committed(e);
  schema.told(e.app);
}

/** Called after the rollback of a collection's change. */
function collectionRestored(e) {
  schema.forget();
  return e.next();
}

/**
 * Writes the rows of a write's `changes`, [channels, action, record] each; changes without channels are left out. The
 * first row has the access scopes, so that users who lose access get none of the rows, and `told`, the part for updates
 * channels.
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
  if (first && (scopes.length > 0 || under.refused)) keep(tx, NONE, "null", besides(scopes, told));
}

/** The parts of a write's first row besides channels and data. */
function besides(scopes, told) {
  const accessPart = scopes.length > 0 ? `,"access":${JSON.stringify(scopes)}` : "";
  const updatesPart = told ? `,"updates":${JSON.stringify(told)}` : "";
  return accessPart + updatesPart + (under.refused ? `,"dropped":${under.refused.size}` : "");
}

/** The channels in lists of at most MAX_CHANNELS. */
function parts(names) {
  if (names.length <= MAX_CHANNELS) return [names];
  const count = Math.ceil(names.length / MAX_CHANNELS);
  return Array.from({ length: count }, (_, i) => names.slice(i * MAX_CHANNELS, (i + 1) * MAX_CHANNELS));
}

/** Writes a row and keeps a copy for the delivery after the commit. */
function keep(tx, names, data, more) {
  const row = `"at":${Date.now()},"channels":${JSON.stringify(names)},"data":${data}${more}}`;
  const seq = insert(tx, `{${row}`);
  if (seq !== null) under.kept = { seq, event: `{"seq":${seq},${row}` };
}

module.exports = {
  create,
  update,
  remove,
  listen,
  notice,
  everything,
  collectionChanged,
  collectionCommitted,
  collectionRestored,
};
