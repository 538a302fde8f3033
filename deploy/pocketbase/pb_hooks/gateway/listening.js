// Which collections' writes pass through the gateway's hooks: those of interest to it, and no other. Each passage through
// a hook takes a JavaScript engine, which slows a busy server down by a fifth even if the hook does nothing.
//
// A changed rule may make any collection one of interest, while PocketBase registers hooks only from the engine that
// loads pb_hooks/*.pb.js. So that engine leaves a function in the app's store, which the others call.

/** Under this key the app's store has the function that registers the hooks of one collection, by its id. */
const REGISTER = "gateway.register";
/** Under this key the app's store has the ids of the collections that have their hooks, as text. */
const REGISTERED = "gateway.registered";

/** Makes sure that these collections (ids) have their hooks. They keep them until PocketBase ends. */
function ensure(app, ids) {
  const register = app.store().get(REGISTER);
  // Inside setFunc, which holds the store's lock: the engine that `register` belongs to must not run twice at a time.
  app.store().setFunc(REGISTERED, (text) => {
    const there = text ? text.split(" ") : [];
    const missing = ids.filter((id) => !there.includes(id));
    missing.forEach((id) => register(id));
    return [...there, ...missing].join(" ");
  });
}

module.exports = { REGISTER, ensure };
