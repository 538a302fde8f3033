// Turns the channel templates of the config into channel names for one record.

const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);

/** As the gateway has it: no white space and no control characters, and so many bytes of UTF-8 at most. */
const NAME = /^[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/;
const MAX_BYTES = 1024;
/** Bytes that a UTF-16 unit may take. */
const UNIT_BYTES = 3;
/** Begins the names of channels that are the gateway's own. */
const INTERNAL = "$";
const NONE = [];

/** The templates of a collection, by today's names (see schema.js). */
function templates(app, collection) {
  const { relay } = schema.current(app);
  return Object.hasOwn(relay, collection) ? relay[collection] : NONE;
}

/** The values at the end of a path, from step `at` on; none where a relation is empty or leads to a record that is gone. */
function follow(relations, record, path, at = 0) {
  const field = path[at];
  if (at === path.length - 1) return field === "id" ? [record.id] : record.getStringSlice(field);
  const relation = record.collection().fields.getByName(field);
  if (!relation) return []; // removed just now
  return record.getStringSlice(field).flatMap((id) => {
    const next = relations.find(relation.collectionId, id);
    return next ? follow(relations, next, path, at + 1) : [];
  });
}

/**
 * The channels that a change of this record goes to; none where its collection is not relayed. `refuse(template, name)`
 * is called for each name that no channel can have. `its`: the templates of its collection.
 */
function of(relations, record, refuse, its = templates(relations.app, record.tableName())) {
  const names = [];
  // Loops by index, here and in outbox.js: PocketBase's JavaScript engine takes far longer for closures and iterators,
  // and all other writes wait meanwhile.
  for (let i = 0; i < its.length; i++) {
    const { namespace, before, path, after } = its[i];
    const values = follow(relations, record, path);
    for (let j = 0; j < values.length; j++) {
      const name = before + values[j] + after;
      if (isPossible(name, namespace)) names.push(name);
      else refuse(`${before}{${path.join(".")}}${after}`, name);
    }
  }
  return names.length > 1 ? [...new Set(names)] : names;
}

function isPossible(name, namespace) {
  const fits = name.length * UNIT_BYTES <= MAX_BYTES || toBytes(name).length <= MAX_BYTES;
  return fits && name.startsWith(`${namespace}:`) && name[0] !== INTERNAL && NAME.test(name);
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

module.exports = { templates, follow, of, isPossible, moved, without };
