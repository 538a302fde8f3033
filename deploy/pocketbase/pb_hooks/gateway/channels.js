// Turns the channel templates of the config into channel names for one record.

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

const NONE = [];

/** The templates of a collection, by today's names (see schema.js). */
function templates(app, collection) {
  const { relay } = schema.current(app);
  return Object.hasOwn(relay, collection) ? relay[collection] : NONE;
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
function relays(app, collection) {
  return templates(app, collection).length > 0;
}

/** The channels that a change of this record goes to; none where its collection is not relayed. */
function of(app, record) {
  const names = new Set();
  for (const { before, path, after } of templates(app, record.tableName())) {
    for (const value of follow(app, record, path)) {
      names.add(before + value + after);
    }
  }
  return [...names];
}

/** Whether an update touched a field that decides about the channels. */
function moved(app, record, original) {
  return templates(app, record.tableName()).some(({ path: [field] }) => touched(record, original, field));
}

module.exports = { relays, of, moved };
