// Tells the gateway, beside a change or in a row of its own, whose access to which channels it may have changed:
//
// Users are named by their KEY (see users.js).
//
//   {"cause":"user","user":KEY}                    the account, or what the rules ask of it
//   {"cause":"member","channel":NAME,"user":KEY}   what decides about this user in this channel
//   {"cause":"related","channel":NAME}             something that decides about everybody in the channel
//   {"cause":"related","namespace":NAME}           something that may decide about any channel of the namespace
//   {"cause":"record","channel":NAME}              the guarded record, in a field that its rule asks for
//   {"cause":"deleted","channel":NAME}             the guarded record is gone
//   {"cause":"rules"}                              a collection: its rules, its fields, the key of its tokens

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** Past so many scopes of one write everything is checked, which is cheaper than going through them. */
const MAX_SCOPES = 500;
const NONE = [];
const EVERYTHING = [{ cause: "rules" }];

/** What writes to this collection may change, for the functions that follow; nothing for most collections. */
function triggers(app, collection) {
  return schema.current(app).triggers.get(collection) || NONE;
}

function created(triggers, record) {
  if (triggers.length === 0) return NONE;
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

function expand({ cause, namespace, channel, prefix, user, keys }, record) {
  const values = (field) => (field === "id" ? [record.id] : record.getStringSlice(field));
  const users = user && values(user).flatMap((id) => keys.map((key) => key + id));
  if (!channel) return users ? users.map((user) => ({ cause, user })) : [{ cause, namespace }];
  const channels = values(channel).map((id) => prefix + id);
  if (!users) return channels.map((channel) => ({ cause, channel }));
  return channels.flatMap((channel) => users.map((user) => ({ cause, channel, user })));
}

/** Whether access may depend on this collection. */
function concerns(app, { id }) {
  return schema.current(app).deciding.includes(id);
}

/** Whether there are users, or guests, whose access could change. */
function isAnybodyThere(app) {
  try {
    const { users, guests } = schema.current(app);
    return guests || users.some(({ id }) => app.countRecords(id) > 0);
  } catch {
    return true; // a users' own collection is on its way out
  }
}

module.exports = { EVERYTHING, triggers, created, updated, deleted, concerns, isAnybodyThere };
