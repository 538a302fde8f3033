// Turns the channel templates of the config into channel names for one record.

const config = require(`${__hooks}/gateway.config.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** "room:{message.room}" → {before: "room:", path: ["message", "room"], after: ""} */
function parse(template) {
  const parts = /^([^{}]*)\{([\w.]+)\}([^{}]*)$/.exec(template);
  if (!parts) {
    throw new Error(`"${template}" is not a channel template; it should look like "room:{field}"`);
  }
  return { before: parts[1], path: parts[2].split("."), after: parts[3] };
}

const templates = new Map();
for (const collection in config.relay) {
  templates.set(collection, config.relay[collection].map(parse));
}

/** The values at the end of a path; none where a relation is empty or leads to a record that is gone. */
function follow(app, record, path) {
  const [field, ...rest] = path;
  if (rest.length === 0) {
    return field === "id" ? [record.id] : record.getStringSlice(field);
  }
  const relation = record.collection().fields.getByName(field);
  const values = [];
  for (const id of record.getStringSlice(field)) {
    let next;
    try {
      next = app.findRecordById(relation.collectionId, id);
    } catch {
      continue;
    }
    values.push(...follow(app, next, rest));
  }
  return values;
}

/** Whether changes of this collection are relayed. */
function relays(collection) {
  return templates.has(collection);
}

/** The channels that a change of this record of a relayed collection goes to. */
function of(app, record) {
  const names = new Set();
  for (const { before, path, after } of templates.get(record.tableName())) {
    for (const value of follow(app, record, path)) {
      names.add(before + value + after);
    }
  }
  return [...names];
}

/** Whether an update touched a field that decides about the channels. */
function moved(record, original) {
  return templates.get(record.tableName()).some(({ path: [field] }) => touched(record, original, field));
}

module.exports = { parse, relays, of, moved };
