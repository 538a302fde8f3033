// Turns the channel templates of the config into channel names for one record.

const config = require(`${__hooks}/gateway.config.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** As the gateway has it: visible ASCII, and so many characters at most. */
const NAME = /^[!-~]{1,255}$/;
/** Begins the names of channels that are the gateway's own. */
const INTERNAL = "$";

/** "room:{message.room}" → {template, namespace: "room", before: "room:", path: ["message", "room"], after: ""} */
function parse(template) {
  const parts = /^([^{}]*)\{([\w.]+)\}([^{}]*)$/.exec(template);
  if (!parts) {
    throw new Error(`"${template}" is not a channel template; it should look like "room:{field}"`);
  }
  const [, before, path, after] = parts;
  return { template, namespace: before.split(":")[0], before, path: path.split("."), after };
}

const templates = new Map();
for (const collection in config.relay) {
  templates.set(collection, config.relay[collection].map(parse));
}

/** The values at the end of a path; none where a relation is empty or leads to a record that is gone. */
function follow(relations, record, path) {
  const [field, ...rest] = path;
  if (rest.length === 0) {
    return field === "id" ? [record.id] : record.getStringSlice(field);
  }
  const { collectionId } = record.collection().fields.getByName(field);
  return record.getStringSlice(field).flatMap((id) => {
    const next = relations.find(collectionId, id);
    return next ? follow(relations, next, rest) : [];
  });
}

/** Whether changes of this collection are relayed. */
function relays(collection) {
  return templates.has(collection);
}

/**
 * The channels that a change of this record goes to; none where its collection is not relayed. `refuse(template, name)`
 * is called for each name that no channel can have.
 */
function of(relations, record, refuse) {
  const names = new Set();
  for (const { template, namespace, before, path, after } of templates.get(record.tableName()) || []) {
    for (const value of follow(relations, record, path)) {
      const name = before + value + after;
      if (isPossible(name, namespace)) names.add(name);
      else refuse(template, name);
    }
  }
  return [...names];
}

function isPossible(name, namespace) {
  return NAME.test(name) && name[0] !== INTERNAL && name.startsWith(`${namespace}:`);
}

/** Whether an update touched a field that decides about the channels. */
function moved(record, original) {
  return templates.get(record.tableName()).some(({ path: [field] }) => touched(record, original, field));
}

module.exports = { parse, templates, follow, relays, of, isPossible, moved };
