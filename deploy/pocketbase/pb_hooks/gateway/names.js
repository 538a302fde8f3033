// Channel names of a record, from channel templates with current names (see schema.js).

/** The gateway's limits for a channel name: no white space or control characters, and MAX_BYTES bytes of UTF-8. */
const NAME = /^[^\u0000-\u0020\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/;
const MAX_BYTES = 1024;
/** Maximum bytes of UTF-8 for one UTF-16 unit. */
const UNIT_BYTES = 3;
/** First character of the gateway's internal channels. */
const INTERNAL = "$";
const NONE = [];

/** The values at the end of a path, from step `at` on; empty if a relation is empty or its record was deleted. */
function follow(relations, record, path, at = 0) {
  const field = path[at];
  if (at === path.length - 1) return field === "id" ? [record.id] : record.getStringSlice(field);
  const relation = record.collection().fields.getByName(field);
  if (!relation) return []; // the field was removed a moment ago
  return record.getStringSlice(field).flatMap((id) => {
    const next = relations.find(relation.collectionId, id);
    return next ? follow(relations, next, path, at + 1) : [];
  });
}

/** The value of a single-value field as a list; cheaper than getStringSlice. */
function plain(record, field) {
  const value = field === "id" ? record.id : record.getString(field);
  return value === "" ? NONE : [value];
}

/**
 * The channels for a change of the record by the given templates. Calls `refuse(template, name)` for each name that no
 * channel can have.
 */
function namesOf(relations, record, refuse, templates) {
  const names = [];
  // Index loops, here and in outbox.js: closures and iterators take far longer in PocketBase's JavaScript engine, and
  // all writes of the server wait meanwhile.
  for (let i = 0; i < templates.length; i++) {
    const { namespace, before, path, after, isPlain } = templates[i];
    const values = isPlain ? plain(record, path[0]) : follow(relations, record, path);
    for (let j = 0; j < values.length; j++) {
      const name = before + values[j] + after;
      if (isPossible(name, namespace)) names.push(name);
      else refuse(`${before}{${path.join(".")}}${after}`, name);
    }
  }
  return names.length > 1 ? [...new Set(names)] : names;
}

/** Whether the name is possible for a channel of the kind `namespace`. */
function isPossible(name, namespace) {
  const fits = name.length * UNIT_BYTES <= MAX_BYTES || toBytes(name).length <= MAX_BYTES;
  return fits && name.startsWith(`${namespace}:`) && name[0] !== INTERNAL && NAME.test(name);
}

/** The elements of `names` that are not in `others`. */
function without(names, others) {
  const known = new Set(others);
  return names.filter((name) => !known.has(name));
}

module.exports = { follow, namesOf, isPossible, without };
