// Tells the gateway, beside a change or in a row of its own, whose access to which channels it may have changed:
//
//   {"cause":"user","user":ID}                     the account, or what the rules ask of it
//   {"cause":"member","channel":NAME,"user":ID}    what decides about this user in this channel
//   {"cause":"related","channel":NAME}             something that decides about everybody in the channel
//   {"cause":"related","namespace":NAME}           something that may decide about any channel of the namespace
//   {"cause":"record","channel":NAME}              the guarded record, in a field that its rule asks for
//   {"cause":"deleted","channel":NAME}             the guarded record is gone
//   {"cause":"rules"}                              a collection: its rules, its fields, the key of its tokens

const config = require(`${__hooks}/gateway.config.js`);
const { derive } = require(`${__hooks}/gateway/dependencies.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** Past so many scopes of one write everything is checked, which is cheaper than going through them. */
const MAX_SCOPES = 500;
const NONE = [];
const EVERYTHING = [{ cause: "rules" }];

/** Under this key the app's store counts the changes of collections; beside it, what was derived since the last. */
const VERSION = "gateway.access";
const derived = (version) => `${VERSION}.${version}`;

// What this JavaScript engine knows. Engines share only text, since an object belongs to one of them.
let known = { version: -1 };

function dependencies(app) {
  const version = app.store().get(VERSION) || 0; // read first: what is derived is then as new, or newer
  if (known.version === version) return known;
  let json = app.store().get(derived(version));
  if (!json) {
    json = JSON.stringify(derive(app));
    app.store().set(derived(version), json);
  }
  const { triggers, collections } = JSON.parse(json);
  known = { version, triggers: new Map(triggers), collections };
  return known;
}

/** To be called after a collection has changed, or has changed back. */
function forget(app) {
  let old;
  app.store().setFunc(VERSION, (version) => {
    old = version || 0;
    return old + 1;
  });
  app.store().remove(derived(old));
}

/** What writes to this collection may change, for the functions that follow; nothing for most collections. */
function triggers(app, collection) {
  return dependencies(app).triggers.get(collection) || NONE;
}

function created(triggers, record) {
  return scopes(triggers.filter((trigger) => trigger.created), [record]);
}

function updated(triggers, record, original) {
  const fires = ({ fields }) => fields === null || fields.some((field) => touched(record, original, field));
  return scopes(triggers.filter(fires), [original, record]);
}

function deleted(triggers, record) {
  return scopes(triggers.filter((trigger) => trigger.deleted), [record]);
}

function scopes(triggers, records) {
  const found = new Map();
  for (const trigger of triggers) {
    for (const record of records) {
      for (const scope of expand(trigger, record)) found.set(JSON.stringify(scope), scope);
    }
  }
  return found.size > MAX_SCOPES ? EVERYTHING : [...found.values()];
}

function expand({ cause, namespace, channel, user }, record) {
  const values = (field) => (field === "id" ? [record.id] : record.getStringSlice(field));
  const users = user && values(user);
  if (!channel) return users ? users.map((user) => ({ cause, user })) : [{ cause, namespace }];
  const channels = values(channel).map((id) => `${namespace}:${id}`);
  if (!users) return channels.map((channel) => ({ cause, channel }));
  return channels.flatMap((channel) => users.map((user) => ({ cause, channel, user })));
}

/** Whether access may depend on this collection. */
function concerns(app, collection) {
  return dependencies(app).collections.includes(collection.id);
}

/** Whether there are users whose access could change. */
function isAnybodyThere(app) {
  try {
    return app.countRecords(config.users.collection) > 0;
  } catch {
    return true; // the users' own collection is on its way out
  }
}

module.exports = { EVERYTHING, triggers, created, updated, deleted, concerns, isAnybodyThere, forget };
