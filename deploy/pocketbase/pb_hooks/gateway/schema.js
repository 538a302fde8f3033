// The config in terms of the current schema. The names in gateway.config.js are looked up at the start and kept as ids:
// a collection or field may be renamed in the dashboard. A deleted collection or field is left out and reported; the
// rest of the config stays in force.
//
// current(app) returns, with current names:
//
//   users     [{id, name, key, bannedUntil, mutedUntil, blocked}]
//   guests    as in the config
//   channels  namespace → {guards: [{id, name, key}], own: id or null, perUser: {collection: field}}; `key` is the
//             prefix of the ids in the guard's channels (only for a status channel with several auth collections)
//   updates   name of an updates channel → namespace
//   relay     collection → [{before, path, after, namespace, isPlain}]
//   triggers  Map of collection → access triggers (see dependencies.js)
//   deciding  ids of the collections that access depends on
//   collections  ids of all collections whose change may matter, and names of missing collections
//   problems  messages about parts of the config that do not fit the schema
//   version   differs after a change of one of `collections`

const { get: readConfig } = require(`${__hooks}/gateway/config.js`);
const { derive } = require(`${__hooks}/gateway/dependencies.js`);
const { planned } = require(`${__hooks}/gateway/plan.js`);

/** Keys in the app's store. The values are text, since an object belongs to a single engine. */
const BOUND = "gateway.bound";
const CURRENT = "gateway.schema";
/** Key: the last version that was reported to the gateway. */
const TOLD = "gateway.told";

/** Key: number of collection changes by this process. */
const CHANGES = "gateway.changes";
/** Key: the last check of the collections by any engine, {version, at}; the object is replaced and never changed. */
const LOOK = "gateway.look";

/** Milliseconds until the next check of the collections; PocketBase itself notices other processes later than this. */
const LOOK_HOLDS = 50;

/** The app's store, which transactions share. */
const store = $app.store();

let known = null;

function current(app) {
  const changes = store.get(CHANGES) || 0;
  const now = Date.now();
  if (known && known.changes === changes) {
    if (isFresh(known.looked, now)) return known;
    // The check of another engine counts as well: a busy server has a hundred engines.
    const look = store.get(LOOK);
    if (look && look.version === known.version && isFresh(look.at, now)) {
      known.looked = look.at;
      return known;
    }
  }
  if (!isToday(app, known, changes)) {
    const shared = store.get(CURRENT);
    known = shared ? JSON.parse(shared) : null;
    if (!isToday(app, known, changes)) {
      known = made(app);
      known.changes = changes;
      known.version = version(app, known.collections);
      store.set(CURRENT, JSON.stringify(known));
    }
    known.triggers = new Map(known.triggers);
    known.interests = new Map(); // for outbox.js
    known.told = false;
  }
  known.looked = now;
  store.set(LOOK, { version: known.version, at: now });
  return known;
}

/** The schema of this engine's last check: for the rest of a write that began with `current`. */
function latest(app) {
  return known || current(app);
}

function isFresh(looked, now) {
  return now >= looked && now - looked < LOOK_HOLDS;
}

function isToday(app, schema, changes) {
  return schema !== null && schema.changes === changes && schema.version === version(app, schema.collections);
}

/**
 * To be called after each change of a collection by this process, after a rollback of the change, and after a change of
 * the config in force: every engine then makes its schema anew.
 */
function forget() {
  store.setFunc(CHANGES, (count) => (count || 0) + 1);
}

/** Text that differs after a change of any of these collections, by this process or another. */
function version(app, collections) {
  return collections.map((idOrName) => updated(app, idOrName)).join(" ");
}

function updated(app, idOrName) {
  const collection = find(app, idOrName);
  return collection ? `${collection.id} ${collection.updated.string()}` : "-";
}

/** Whether the current version was not reported to the gateway, since another process has changed collections. */
function isUntold(app) {
  const schema = current(app);
  // A reported version stays reported until the next version replaces it.
  if (!schema.told) schema.told = store.get(TOLD) === schema.version;
  return !schema.told;
}

/** Notes that all changes up to now are reported to the gateway, or in rows that the gateway will read. */
function told(app) {
  store.set(TOLD, current(app).version);
}

// ---- names to ids

/**
 * Looks up the names in the config and keeps the ids. `check` (schema_check.js) has shown that all names exist.
 *
 * {collections: name → id, fields: "COLLECTION_ID NAME" → id}
 */
function bind(app) {
  const config = readConfig();
  const ids = { collections: {}, fields: {} };
  const collection = (name) => {
    const found = find(app, name);
    if (found) ids.collections[name] = found.id;
    return found;
  };
  const field = (of, name) => {
    const found = of && of.fields.getByName(name);
    if (found) ids.fields[`${of.id} ${name}`] = found.id;
    return found;
  };
  for (const { collection: name, bannedUntil, mutedUntil, blocked } of config.users) {
    const users = collection(name);
    [bannedUntil, mutedUntil, blocked].filter(Boolean).forEach((its) => field(users, its));
  }
  for (const namespace in config.channels) {
    const { guard, perUser } = config.channels[namespace];
    guard.forEach(collection);
    for (const name in perUser) field(collection(name), perUser[name]);
  }
  for (const name in config.relay) {
    for (const { path } of config.relay[name].to) {
      let at = collection(name);
      for (const step of path) {
        const found = field(at, step);
        at = found && found.type() === "relation" ? find(app, found.collectionId) : null;
      }
    }
  }
  bindAs(JSON.stringify(ids));
}

/** The ids of the config's names, as text; null before `bind`. */
function bound() {
  return store.get(BOUND) || null;
}

/** Keeps ids that an earlier start has looked up for the config in force. */
function bindAs(text) {
  store.set(BOUND, text);
}

/** The schema with current names for the ids, and with the access triggers from the rules. */
function made(app) {
  const ids = bound();
  const { gone, ...plan } = planned(app, readConfig(), ids ? JSON.parse(ids) : { collections: {}, fields: {} });
  // No warnings before `bind`: migrations may still have to create the collections.
  for (const problem of ids ? plan.problems : []) app.logger().warn(`gateway: ${problem}`);
  const { triggers, collections } = derive(app, plan);
  const relayed = Object.keys(plan.relay).map((name) => find(app, name).id);
  return { ...plan, triggers, deciding: collections, collections: [...new Set([...collections, ...relayed, ...gone])] };
}

function find(app, nameOrId) {
  try {
    return app.findCachedCollectionByNameOrId(nameOrId);
  } catch {
    return null; // not created yet, or deleted
  }
}

module.exports = { current, latest, forget, isUntold, told, bind, bindAs, bound };
