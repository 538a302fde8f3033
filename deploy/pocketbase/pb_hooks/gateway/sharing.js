// Classes: groups of users with the same visible records. The gateway keeps one set of records for the whole class.
//
// A class contains the users with the same values in the account fields that the rule reads. A record may also name a
// user, by a relation of the record or through a link such as a membership; then the user may view the record although
// the class may not, or the reverse. Rules that use more than fields and links have no classes.

const access = require(`${__hooks}/gateway/access.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { AUTH, ME, filterOfUser, isScalar, scalar } = require(`${__hooks}/gateway/filter.js`);
const { operands, substitute } = require(`${__hooks}/gateway/rule.js`);

/** True for every login. */
const SIGNED_IN = /@request\.auth\.id\s*!=\s*(""|'')/g;

let known = { version: null, of: {} };

/**
 * The parts of the guard's rule that depend on the user, if classes can express them; else null. Cached until a
 * collection or the config changes.
 *
 *   fields  of the account
 *   paths   from the guarded record to the named users, as in a rule
 *   linked  the subset of `paths` that the rule follows from the account's side
 */
function sharingOf(app, guard, users) {
  if (!users || users.name === "_superusers") return null;
  const { changes, version: collections } = schema.current(app);
  const version = `${changes} ${collections}`; // `changes` also counts changes of the config in force
  if (known.version !== version) known = { version, of: {} };
  const place = `${guard.namespace} ${users.id}`;
  if (!(place in known.of)) known.of[place] = guard.rule === null ? null : analysed(app, guard, users);
  return known.of[place];
}

function analysed(app, { namespace, collection, rule }, users) {
  const named = relationsTo(collection, users);
  const [fields, paths, linked] = [new Set(), new Set(), new Set()];

  // Links must concern only the user and the guarded record.
  const link = (segment, isFromAccount = false) => {
    const [, from] = /^(\w+)_via_\w+$/.exec(segment) || [];
    const concerned = ({ namespace: of, cause }) => of === namespace || cause === "user";
    const triggers = from ? access.triggersOf(app, from).filter(concerned) : [];
    if (triggers.length === 0 || triggers.some(({ cause }) => cause !== "member")) return false;
    for (const { user, channel } of triggers) {
      const path = channel === "id" ? user : `${from}_via_${channel}.${user}`;
      paths.add(path);
      if (isFromAccount) linked.add(path);
    }
    return true;
  };
  const isOfClass = ({ name, sign, other }) => {
    const path = name.split(".");
    if (name === ME) {
      if (!other) return false; // compared with the id of a certain user
      const [first, ...rest] = other.split(".");
      if (rest.length > 0) return link(first);
      const field = first.replace(/:each$/, "");
      if (!named.includes(field)) return false;
      // A relation with several values is stored as a list, which never equals an id.
      paths.add(collection.fields.getByName(field).isMultiple() ? `${field}.id` : field);
      return true;
    }
    if (name.startsWith(AUTH)) {
      if (path.length > 3) return sign !== undefined && sign[0] === "?" && link(path[2], true);
      const single = isScalar(users, path[2]);
      if (single) fields.add(path[2]);
      return single;
    }
    if (name.startsWith("@request.")) return false;
    if (name[0] === "@" || path.length === 1) return true;
    const [, from] = /^(\w+)_via_\w+$/.exec(path[0]) || [];
    return !from || !access.triggersOf(app, from).some(({ cause }) => cause === "member") || link(path[0]);
  };
  const all = operands(rule.replace(SIGNED_IN, "true = true"));
  return all.every(isOfClass) ? { fields: [...fields].sort(), paths: [...paths], linked: [...linked] } : null;
}

/** The names of the collection's fields that point to users of this auth collection. */
function relationsTo(collection, users) {
  const points = (field) => field.type() === "relation" && field.collectionId === users.id;
  return collection.fields.filter(points).map((field) => field.name);
}

/** The name of a user's class, with all values of the class. */
function classOf(sharing, user) {
  return JSON.stringify([user.collection().id, sharing.fields.map((field) => [field, scalar(user, field)])]);
}

/**
 * A filter, {text, values}, for the records visible to users of this class, except users named by the record. Null for
 * a class of an earlier rule.
 */
function filterOfClass(app, guard, name) {
  const [collectionId, fields] = JSON.parse(name);
  const account = schema.current(app).users.find(({ id }) => id === collectionId);
  const sharing = account && sharingOf(app, guard, app.findCachedCollectionByNameOrId(collectionId));
  if (!sharing || JSON.stringify(fields.map(([field]) => field)) !== JSON.stringify(sharing.fields)) return null;
  // A random user, without any links.
  const values = { me: $security.randomString(15) };
  fields.forEach(([, value], i) => (values[`v${i}`] = value));
  const text = substitute(guard.rule, (operand) => {
    if (operand === ME) return "{:me}";
    if (!operand.startsWith(AUTH)) return null;
    const i = sharing.fields.indexOf(operand.slice(AUTH.length));
    return i < 0 ? "null" : `{:v${i}}`;
  });
  return { text, values };
}

/**
 * {path, filter: {text, values}}: a filter for the visible records among the records that name the user by this path.
 * The rule only asks for the existence of the link, so the condition on the link is true for all these records. Null
 * unless exactly one such path exists.
 */
function filterOfLinked(guard, { fields, linked }, user) {
  if (linked.length !== 1) return null;
  const filter = filterOfUser(guard.rule, user, (operand) =>
    operand.startsWith(AUTH) && operand !== ME && !fields.includes(operand.slice(AUTH.length)) ? "id" : null,
  );
  return filter && { path: linked[0], filter };
}

module.exports = { sharingOf, classOf, filterOfClass, filterOfLinked, relationsTo };
