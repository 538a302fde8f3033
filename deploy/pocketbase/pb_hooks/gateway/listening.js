// Registration of record hooks, for the collections of interest to the gateway alone. Each hook call occupies a
// JavaScript engine: a hook without work still slows a busy server by a fifth.
//
// A changed rule may add a collection of interest, but PocketBase registers hooks only from the engine that loads
// pb_hooks/*.pb.js. Therefore this engine puts two functions into the app's store, and other engines call them.

/** Key in the app's store: the function that registers the hooks of a collection id. */
const REGISTER = "gateway.register";
/** Key in the app's store: the function that registers the hooks after the commit, by collection name. */
const REGISTER_AFTER = "gateway.register.after";

/** Collections with hooks, as known to this JavaScript engine. */
const known = new Set();
const knownAfter = new Set();

/** The store of the app, the same for all transactions. */
const store = $app.store();

/** Registers the hooks of these collections (ids), once; they stay registered until PocketBase ends. */
function ensure(ids) {
  ids.forEach((id) => once(REGISTER, known, id));
}

/**
 * Registers the hooks after the commit for a collection (name), once. Only transactions of the application, such as a
 * batch, need these hooks.
 */
function ensureAfter(collection) {
  once(REGISTER_AFTER, knownAfter, collection);
}

function once(key, known, name) {
  if (known.has(name)) return;
  const register = store.get(key);
  // Inside setFunc, under the store's lock: the engine of `register` may have one caller at a time.
  store.setFunc(`${key} ${name}`, (there) => {
    if (!there) register(name);
    return true;
  });
  known.add(name);
}

module.exports = { REGISTER, REGISTER_AFTER, ensure, ensureAfter };
