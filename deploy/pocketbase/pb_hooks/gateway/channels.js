// Turns the channel templates of the config into channel names for one record.

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** As the gateway has it: visible ASCII, and so many characters at most. */
const NAME = /^[!-~]{1,255}$/;
/** Begins the names of channels that are the gateway's own. */
const INTERNAL = "$";
const NONE = [];

/** The templates of a collection, by today's names (see schema.js). */
function templates(app, collection) {
  const { relay } = schema.current(app);
  return Object.hasOwn(relay, collection) ? relay[collection] : NONE;
}

/** The values at the end of a path; none where a relation is empty or leads to a record that is gone. */
function follow(relations, record, path) {
  const [field, ...rest] = path;
  if (rest.length === 0) {
    return field === "id" ? [record.id] : record.getStringSlice(field);
  }
  const relation = record.collection().fields.getByName(field);
  if (!relation) return []; // removed just now
  return record.getStringSlice(field).flatMap((id) => {
    const next = relations.find(relation.collectionId, id);
    return next ? follow(relations, next, rest) : [];
  });
}

/** Whether changes of this collection are relayed. */
function relays(app, collection) {
  return templates(app, collection).length > 0;
}

/**
 * The channels that a change of this record goes to; none where its collection is not relayed. `refuse(template, name)`
 * is called for each name that no channel can have.
 */
function of(relations, record, refuse) {
  const names = new Set();
  for (const { namespace, before, path, after } of templates(relations.app, record.tableName())) {
    for (const value of follow(relations, record, path)) {
      const name = before + value + after;
      if (isPossible(name, namespace)) names.add(name);
      else refuse(`${before}{${path.join(".")}}${after}`, name);
    }
  }
  return [...names];
}

function isPossible(name, namespace) {
  return NAME.test(name) && name[0] !== INTERNAL && name.startsWith(`${namespace}:`);
}

/** Whether an update touched a field that decides about the channels. */
function moved(app, record, original) {
  return templates(app, record.tableName()).some(({ path: [field] }) => touched(record, original, field));
}

/** Those of `names` that `others` lacks. */
function without(names, others) {
  const known = new Set(others);
  return names.filter((name) => !known.has(name));
}

module.exports = { follow, relays, of, isPossible, moved, without };
