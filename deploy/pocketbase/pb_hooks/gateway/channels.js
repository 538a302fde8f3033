// The channels of a record, by the templates of its collection in the config.

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);
const { follow, isPossible, namesOf, without } = require(`${__hooks}/gateway/names.js`);

const NONE = [];

/** The templates of a collection, with current names (see schema.js). */
function templates(app, collection) {
  const { relay } = schema.current(app);
  return Object.hasOwn(relay, collection) ? relay[collection] : NONE;
}

/**
 * The channels for a change of the record; empty if the collection is not relayed. Calls `refuse(template, name)` for
 * each name that no channel can have. `its`: the templates of the collection.
 */
function of(relations, record, refuse, its = templates(relations.app, record.tableName())) {
  return namesOf(relations, record, refuse, its);
}

/** Whether an update changed a field that decides about the record's channels. */
function moved(app, record, original) {
  return templates(app, record.tableName()).some(({ path: [field] }) => touched(record, original, field));
}

module.exports = { templates, follow, of, isPossible, moved, without };
