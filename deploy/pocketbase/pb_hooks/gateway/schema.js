// The config in terms of today's schema. Names in gateway.config.js are looked up at the start and kept as ids, so a
// collection or field that is renamed in the dashboard is followed; one that is deleted is left out and reported, and
// everything else goes on.
//
// current(app) gives, by today's names:
//
//   users     [{id, name, key, bannedUntil, mutedUntil, blocked}]
//   guests    as in the config
//   channels  namespace → {guards: [{id, name, key}], own: id or null, perUser: {collection: field}}; `key` begins the
//             ids of the guard's channels (only where a status channel has several auth collections)
//   updates   channel → namespace
//   relay     collection → [{before, path, after, namespace}]
//   triggers  Map of collection → which writes change whose access (see dependencies.js)
//   deciding  ids of the collections that access depends on
//   collections  ids of all collections whose change may matter, and names of those that are gone
//   problems  sentences about what the config names and the schema no longer has
//   version   differs whenever one of `collections` has changed

const { get: readConfig } = require(`${__hooks}/gateway/config.js`);
const { derive } = require(`${__hooks}/gateway/dependencies.js`);
const { planned } = require(`${__hooks}/gateway/plan.js`);

/** Keys in the app's store. Engines share only text, since an object belongs to one of them. */
const BOUND = "gateway.bound";
const CURRENT = "gateway.schema";
/** The version that the gateway was last told of. */
const TOLD = "gateway.told";

/** Counts the collection changes of this process. */
const CHANGES = "gateway.changes";
/** The last look at the collections by any engine, {version, at}: an object that is replaced and never changed. */
const LOOK = "gateway.look";

/** Milliseconds for which a look at the collections holds; PocketBase itself takes longer to notice another process. */
const LOOK_HOLDS = 50;

/** The app's store, which transactions share. */
const store = $app.store();

let known = null;

function current(app) {
  const changes = store.get(CHANGES) || 0;
  const now = Date.now();
  if (known && known.changes === changes) {
    if (isFresh(known.looked, now)) return known;
    // Another engine's look counts as well, since a busy server has a hundred of them.
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

function isFresh(looked, now) {
  return now >= looked && now - looked < LOOK_HOLDS;
}

function isToday(app, schema, changes) {
  return schema !== null && schema.changes === changes && schema.version === version(app, schema.collections);
}

/** To be called when this process has changed a collection, or has changed it back. */
function forget(app) {
  store.setFunc(CHANGES, (count) => (count || 0) + 1);
}

/** Text that differs after a change of any of these collections, in this process or another one. */
function version(app, collections) {
  return collections.map((idOrName) => updated(app, idOrName)).join(" ");
}

function updated(app, idOrName) {
  const collection = find(app, idOrName);
  return collection ? `${collection.id} ${collection.updated.string()}` : "-";
}

/** Whether the collections differ from those that the gateway was last told of: another process has changed them. */
function isUntold(app) {
  const schema = current(app);
  // Once it is told, it stays so until another one takes its place.
  if (!schema.told) schema.told = store.get(TOLD) === schema.version;
  return !schema.told;
}

/** Notes that the gateway knows of, or will read, all changes up to now. */
function told(app) {
  store.set(TOLD, current(app).version);
}

// ---- names to ids

/**
 * Looks up what the config names and keeps the ids. `check` has seen that all of it is there.
 *
 * {collections: name → id, fields: "COLLECTION_ID NAME" → id}
 */
function bind(app) {
  const config = readConfig();
  const bound = { collections: {}, fields: {} };
  const collection = (name) => {
    const found = find(app, name);
    if (found) bound.collections[name] = found.id;
    return found;
  };
  const field = (of, name) => {
    const found = of && of.fields.getByName(name);
    if (found) bound.fields[`${of.id} ${name}`] = found.id;
    return found;
  };
  for (const { collection: name, bannedUntil, mutedUntil, blocked } of config.users) {
    const users = collection(name);
    [bannedUntil, mutedUntil, blocked].filter(Boolean).forEach((name) => field(users, name));
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
  store.set(BOUND, JSON.stringify(bound));
}

/** From the ids to today's names, with what follows from the rules. */
function made(app) {
  const bound = store.get(BOUND);
  const { gone, ...plan } = planned(app, readConfig(), bound ? JSON.parse(bound) : { collections: {}, fields: {} });
  // Until the start has looked everything up, migrations may still have to make it.
  for (const problem of bound ? plan.problems : []) app.logger().warn(`gateway: ${problem}`);
  const { triggers, collections } = derive(app, plan);
  const relayed = Object.keys(plan.relay).map((name) => find(app, name).id);
  return { ...plan, triggers, deciding: collections, collections: [...new Set([...collections, ...relayed, ...gone])] };
}

function find(app, nameOrId) {
  try {
    return app.findCachedCollectionByNameOrId(nameOrId);
  } catch {
    return null; // not yet or no longer there
  }
}

module.exports = { current, forget, isUntold, told, bind };
