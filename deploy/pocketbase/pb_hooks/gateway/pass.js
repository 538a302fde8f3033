// The way past the gateway's hooks for writes that are of no interest to it: most writes of most applications. It loads
// no other file, since a JavaScript engine that PocketBase makes for a single write would load them all for nothing.

/** Under this key the app's store counts the changes of collections by this process. */
const CHANGES = "gateway.changes";
/**
 * Under this key the app's store has the last look at the collections by any engine, as an object that is replaced and
 * never changed: {changes: the count then, version: of the schema, at: unix ms, told: whether the gateway knows of it,
 * idle: names of collections of no interest, each between two blanks}.
 */
const LOOK = "gateway.look";
/** Milliseconds for which a look holds; PocketBase itself takes longer to notice another process's changes. */
const LOOK_HOLDS = 50;

/** The app's store, which transactions share. */
const store = $app.store();

/** The last look if it still holds, else null. */
function look() {
  const last = store.get(LOOK);
  if (!last) return null;
  const age = Date.now() - last.at;
  return age >= 0 && age < LOOK_HOLDS && last.changes === (store.get(CHANGES) || 0) ? last : null;
}

/** Takes note of a look. What is known of idle collections stays if nothing has changed. */
function looked(changes, version, told) {
  store.setFunc(LOOK, (last) => {
    const same = last && last.changes === changes && last.version === version;
    return { changes, version, at: Date.now(), told, idle: same ? last.idle : " " };
  });
}

/** Takes note that writes in a collection (its name) are of no interest under this version of the schema. */
function idle(collection, changes, version) {
  store.setFunc(LOOK, (last) => {
    if (!last || last.changes !== changes || last.version !== version || names(last, collection)) return last;
    return { ...last, idle: `${last.idle}${collection} ` };
  });
}

function names(look, collection) {
  return look.idle.includes(` ${collection} `);
}

/** Goes on with a record event: at once, or by the function of outbox.js with this name. */
function go(e, name) {
  const last = look();
  if (last && last.told && names(last, e.record.tableName())) return e.next();
  outbox ??= require(`${__hooks}/gateway/outbox.js`); // looking up a path takes longer than all of the above
  return outbox[name](e);
}

let outbox;

const create = (e) => go(e, "create");
const update = (e) => go(e, "update");
const remove = (e) => go(e, "remove");

module.exports = { CHANGES, LOOK_HOLDS, look, looked, idle, create, update, remove };
