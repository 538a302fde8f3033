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
const { insert } = require(`${__hooks}/gateway/rows.js`);
const { delivered, committed } = require(`${__hooks}/gateway/after.js`);
const { joinTransaction } = require(`${__hooks}/gateway/transaction.js`);

/** Channels of one row; more are split over several. The gateway takes 1,000, of 1,024 bytes each. */
const MAX_CHANNELS = 500;

const NONE = [];

const create = (e) => write(e, created);
const update = (e) => write(e, updated);
const remove = (e) => write(e, removed);

// Each of these goes on with the event and writes its rows. Plain loops and functions, here and in what they call:
// PocketBase's JavaScript engine takes far longer for closures and iterators, and all other writes wait meanwhile.

function created(e, tx, { relayed, templates, triggers, told }) {
  e.next();
  const { record } = e;
  const names = relayed ? channels.of(new Relations(tx), record, refuse, templates) : NONE;
  const changes = relayed || told ? [[names, "create", record]] : NONE;
  append(tx, changes, access.created(triggers, record), told && updates.of(tx, record));
}

function updated(e, tx, { relayed, templates, triggers, told, steps }) {
  // Not record.original(), which is stale in an instance that is saved a second time.
  const original = stored(tx, e.record);
  e.next();
  if (!original) return; // nothing was there to be updated
  const { record } = e;
  const changes = relayed ? moves(tx, record, original, templates) : [];
  // A row of its own where the record left channels: what it says of them is no update.
  if (told && (changes.length !== 1 || changes[0][1] !== "update")) changes.unshift([[], "update", record]);
  if (steps.length > 0) changes.push(...dependents.moved(tx, steps, record, original, refuse));
  append(tx, changes, access.updated(triggers, record, original), told && updates.of(tx, record, original));
}

function removed(e, tx, { relayed, templates, triggers, told, steps }) {
  const record = stored(tx, e.record);
  if (!record) return e.next(); // somebody else has deleted it before
  // Before the cascade, which takes away what the paths lead through.
  const names = relayed ? channels.of(new Relations(tx, NONE), record, refuse, templates) : NONE;
  if (steps.length > 0) whileDeleting(tx, record, () => e.next());
  else e.next();
  const changes = relayed || told ? [[names, "delete", record]] : NONE;
  append(tx, changes, access.deleted(triggers, record), told && updates.of(tx, record));
}

/** The write under way in this JavaScript engine, never more than one: {app, collection, refused, kept}. */
let under = null;

/** Goes on with a record event: by `work`, in a transaction, if the gateway could want to know of it. */
function write(e, work) {
  const { app, record } = e;
  notice(app);
  const collection = record.tableName(); // its name, for less than record.collection().name costs
  if (interestOf(app, schema.latest(app), collection, record) === null) return e.next();
  under = { app, collection, refused: null, kept: null };
  joinTransaction(e, (tx) => {
    // Looked up anew: a rule may have been edited while this write waited for its transaction.
    const interest = interestOf(tx, schema.current(tx), collection, record);
    if (interest === null) e.next();
    else work(e, tx, interest);
  });
  if (under.kept) delivered(e, app, collection, under.kept);
}

/** Names that no channel can have are left out, counted for the gateway, and logged. */
function refuse(template, name) {
  const { app, collection } = under;
  under.refused ??= new Set();
  if (under.refused.has(name)) return;
  under.refused.add(name);
  warn(app, `channel.${collection}.${template}`, "a channel template yields a name that no channel can have: " +
    "it needs the template's namespace and a colon, at most 1,024 bytes, and no blanks or control characters",
    "collection", collection, "template", template);
}

/** The same as interestIn, kept with the schema. */
function interestOf(app, { interests }, collection, record) {
  let interest = interests.get(collection);
  if (interest === undefined) interests.set(collection, (interest = interestIn(app, record.collection())));
  return interest;
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
  listening.ensure(wanted.map(({ id }) => id));
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
 * Has everything checked anew if another process has changed collections, as `pocketbase migrate up` does: what is
 * written after it is then seen only by those whom the new rules let in.
 */
function notice(app) {
  if (!schema.isUntold(app)) return;
  listen(app);
  everything(app);
  // The transaction of somebody else may be rolled back, and this row with it: then the next write tells of it once more.
  if (!app.isTransactional()) schema.told(app);
}

/** Writes a row that has everybody's access checked anew. */
function everything(app) {
  return insert(app, `{"channels":[],"data":null,"access":${JSON.stringify(access.EVERYTHING)}}`);
}

/** Goes on with a change of a collection by this process. */
function collection(e) {
  const concerned = access.concerns(e.app, e.collection);
  joinTransaction(e, (tx) => {
    under = { app: tx, collection: e.collection.name, refused: null, kept: null };
    e.next();
    schema.forget(tx);
    listen(tx);
    if ((concerned || access.concerns(tx, e.collection)) && access.isAnybodyThere(tx)) append(tx, NONE, access.EVERYTHING, false);
  });
  if (under.kept) delivered(e, e.app, null, under.kept);
}

/** A change of a collection by this process is committed; its row is there. */
function collectionCommitted(e) {
  committed(e);
  schema.told(e.app);
}

/** A change of a collection by this process was rolled back. */
function collectionRestored(e) {
  schema.forget(e.app);
  return e.next();
}

/**
 * Writes rows for each change, [channels, action, record], that goes anywhere. The first row has the scopes, so that
 * users without access any more get none of the rows, and the part for updates channels, if these are `told`.
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

/** What the first row of a write has besides channels and data. */
function besides(scopes, told) {
  const access = scopes.length > 0 ? `,"access":${JSON.stringify(scopes)}` : "";
  const updated = told ? `,"updates":${JSON.stringify(told)}` : "";
  return access + updated + (under.refused ? `,"dropped":${under.refused.size}` : "");
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
  if (seq !== null) under.kept = { seq, event: `{"seq":${seq},${row}` };
}

module.exports = { create, update, remove, listen, notice, everything, collection, collectionCommitted, collectionRestored };
