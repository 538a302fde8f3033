// Which collections' writes pass through the gateway's hooks: those of interest to it, and no other. Each passage through
// a hook takes a JavaScript engine, which slows a busy server down by a fifth even if the hook does nothing.
//
// A changed rule may make any collection one of interest, while PocketBase registers hooks only from the engine that
// loads pb_hooks/*.pb.js. So that engine leaves two functions in the app's store, which the others call.

/** Under this key the app's store has the function that registers the hooks of one collection, by its id. */
const REGISTER = "gateway.register";
/** The same for the hooks after the commit, by the collection's name. */
const REGISTER_AFTER = "gateway.register.after";

/** What this JavaScript engine knows to be there. */
const known = new Set();
const knownAfter = new Set();

/** The app's store, which transactions share. */
const store = $app.store();

/** Makes sure that these collections (ids) have their hooks. They keep them until PocketBase ends. */
function ensure(ids) {
  ids.forEach((id) => once(REGISTER, known, id));
}

/**
 * Makes sure that writes in this collection (its name) are posted after a transaction that the application opened, as a
 * batch does. Others need no hook for that.
 */
function ensureAfter(collection) {
  once(REGISTER_AFTER, knownAfter, collection);
}

function once(key, known, name) {
  if (known.has(name)) return;
  const register = store.get(key);
  // Inside setFunc, which holds the store's lock: the engine that `register` belongs to must have one caller at a time.
  store.setFunc(`${key} ${name}`, (there) => {
    if (!there) register(name);
    return true;
  });
  known.add(name);
}

module.exports = { REGISTER, REGISTER_AFTER, ensure, ensureAfter };
