// Registers the delivery's after-success hooks, each for one collection, when the first write of it leaves a row in the
// outbox. So writes that leave none do not pass through a second hook.

/** Under this key the app's store has the function that registers the hooks; gateway.pb.js puts it there. */
const REGISTER = "gateway.listen";
/** Under this key the app's store has the collections that have their hooks, as text. */
const REGISTERED = "gateway.listening";

/** As far as this JavaScript engine knows. */
const known = new Set();

/** Makes sure that the after-success hooks of a collection (its name) are there. */
function ensure(app, collection) {
  if (known.has(collection)) return;
  const register = app.store().get(REGISTER);
  // `register` belongs to the engine that loaded the hooks, which must not run twice at a time: hence inside setFunc,
  // which holds the store's lock.
  app.store().setFunc(REGISTERED, (names) => {
    const all = names ? names.split(" ") : [];
    if (all.includes(collection)) return names;
    register(collection);
    return [...all, collection].join(" ");
  });
  known.add(collection);
}

module.exports = { REGISTER, ensure };
