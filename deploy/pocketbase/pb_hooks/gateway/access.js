// Access changes: the part of an outbox row about access to channels, which the write may have changed. An entry is a
// scope (the affected users and channels), with the changed data as its cause. KEY names a user (see users.js).
//
//   {"cause":"user","user":KEY}                    the account, or a record that decides about a single user
//   {"cause":"member","channel":NAME,"user":KEY}   a record that decides about a single user in a channel
//   {"cause":"related","channel":NAME}             a record that decides about every user in a channel
//   {"cause":"related","namespace":NAME}           a record that may decide about every channel of a namespace
//   {"cause":"record","channel":NAME}              the guarded record, in a field that the rule reads
//   {"cause":"deleted","channel":NAME}             the guarded record was deleted
//   {"cause":"rules"}                              a collection: rules, fields or the key of the tokens

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** Maximum scopes in a row. Above the limit, the gateway checks all access, which is cheaper. */
const MAX_SCOPES = 500;
const NONE = [];
const EVERYTHING = [{ cause: "rules" }];

/** The access triggers of a collection (see dependencies.js), for the functions below; empty for most collections. */
function triggersOf(app, collection) {
  return schema.current(app).triggers.get(collection) || NONE;
}

function created(triggers, record) {
  if (triggers.length === 0) return NONE;
  return scopes(
    triggers.filter((trigger) => trigger.created),
    [record],
  );
}

function updated(triggers, record, original) {
  const fires = ({ fields }) => fields === null || fields.some((field) => touched(record, original, field));
  return scopes(triggers.filter(fires), [original, record]);
}

function deleted(triggers, record) {
  return scopes(
    triggers.filter((trigger) => trigger.deleted),
    [record],
  );
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

function expand({ cause, namespace, channel, prefix, user, keys }, record) {
  const values = (field) => (field === "id" ? [record.id] : record.getStringSlice(field));
  const users = user && values(user).flatMap((id) => keys.map((key) => key + id));
  if (!channel) return users ? users.map((one) => ({ cause, user: one })) : [{ cause, namespace }];
  const channels = values(channel).map((id) => prefix + id);
  if (!users) return channels.map((name) => ({ cause, channel: name }));
  return channels.flatMap((name) => users.map((one) => ({ cause, channel: name, user: one })));
}

/** Whether access may depend on this collection. */
function concerns(app, { id }) {
  return schema.current(app).deciding.includes(id);
}

/** Whether any access could change: guests are allowed, or at least one account exists. */
function isAnybodyThere(app) {
  try {
    const { users, guests } = schema.current(app);
    return guests || users.some(({ id }) => app.countRecords(id) > 0);
  } catch {
    return true; // an auth collection is being deleted
  }
}

module.exports = { EVERYTHING, triggersOf, created, updated, deleted, concerns, isAnybodyThere };
