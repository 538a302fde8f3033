// Registration of record hooks, only for collections that matter to the gateway. Each hook call occupies a JavaScript
// engine: even a hook without work slows a busy server by a fifth.
//
// After a change of a rule, more collections may matter, but PocketBase registers hooks only from the engine that loads
// pb_hooks/*.pb.js. Therefore this engine puts two functions into the app's store, and every engine can call them.

/** Key in the app's store: the function that registers the hooks of a collection id. */
const REGISTER = "gateway.register";
/** Key in the app's store: the function that registers the hooks after the commit, by collection name. */
const REGISTER_AFTER = "gateway.register.after";

/** Collections whose hooks are registered, as far as the current JavaScript engine knows. */
const registered = new Set();
const registeredAfter = new Set();

/** The app's store, which transactions share. */
const store = $app.store();

/** Registers the hooks of collections (ids), once; the hooks stay registered until PocketBase ends. */
function ensure(ids) {
  ids.forEach((id) => once(REGISTER, registered, id));
}

/**
 * Registers the hooks after the commit for a collection (name), once. Only transactions of the application, such as a
 * batch, need the hooks after the commit.
 */
function ensureAfter(collection) {
  once(REGISTER_AFTER, registeredAfter, collection);
}

function once(key, known, name) {
  if (known.has(name)) return;
  const register = store.get(key);
  // Inside setFunc, which holds the store's lock: the engine of `register` allows one caller at a time.
  store.setFunc(`${key} ${name}`, (there) => {
    if (!there) register(name);
    return true;
  });
  known.add(name);
}

module.exports = { REGISTER, REGISTER_AFTER, ensure, ensureAfter };
