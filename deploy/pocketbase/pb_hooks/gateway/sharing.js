// Classes: users who may view the same records of a guard, so that the gateway keeps those once for all of them.
//
// A class is all users with the same values in those account fields that the rule looks at. A record may also name a
// user: by a relation of its own, or through a link such as a membership; that user may then view it although the
// class may not, or the reverse. Where a rule asks for more than such fields and links, there are no classes.

const access = require(`${__hooks}/gateway/access.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { operands, substitute } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
const AUTH = "@request.auth.";
/** Holds for whoever asks. */
const SIGNED_IN = /@request\.auth\.id\s*!=\s*(""|'')/g;
/** Types of fields with one value, which can stand in a filter in place of the field's name. */
const SCALARS = ["text", "email", "url", "editor", "date", "autodate", "select", "bool", "number"];

let known = { version: null, of: {} };

/**
 * How the guard's rule depends on who asks, if that is no more than classes can express; else null. Remembered until a
 * collection changes.
 *
 *   fields  of the account
 *   paths   from the guarded record to the users whom it names, as in a rule
 *   linked  those of them that the rule looks at from the account's side
 */
function sharingOf(app, guard, users) {
  if (!users || users.name === "_superusers") return null;
  const { version } = schema.current(app);
  if (known.version !== version) known = { version, of: {} };
  const place = `${guard.namespace} ${users.id}`;
  if (!(place in known.of)) known.of[place] = guard.rule === null ? null : analysed(app, guard, users);
  return known.of[place];
}

function analysed(app, { namespace, collection, rule }, users) {
  const named = relationsTo(collection, users);
  const [fields, paths, linked] = [new Set(), new Set(), new Set()];

  // What points to the user or to the guarded record has to concern only the two.
  const link = (segment, isFromAccount = false) => {
    const [, from] = /^(\w+)_via_\w+$/.exec(segment) || [];
    const concerned = ({ namespace: of, cause }) => of === namespace || cause === "user";
    const triggers = from ? access.triggers(app, from).filter(concerned) : [];
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
      if (!other) return false; // compared with a certain user's
      const [first, ...rest] = other.split(".");
      if (rest.length > 0) return link(first);
      const field = first.replace(/:each$/, "");
      if (!named.includes(field)) return false;
      paths.add(field);
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
    return !from || !access.triggers(app, from).some(({ cause }) => cause === "member") || link(path[0]);
  };
  const all = operands(rule.replace(SIGNED_IN, "true = true"));
  return all.every(isOfClass) ? { fields: [...fields].sort(), paths: [...paths], linked: [...linked] } : null;
}

/** The names of the collection's fields that point to users of this auth collection. */
function relationsTo(collection, users) {
  const points = (field) => field.type() === "relation" && field.collectionId === users.id;
  return collection.fields.filter(points).map((field) => field.name);
}

function isScalar(users, name) {
  const field = users.fields.getByName(name);
  return Boolean(field) && SCALARS.includes(field.type()) && !(field.maxSelect > 1);
}

/** The value of an account's field as it can be bound to a filter. */
function scalar(user, name) {
  const value = user.get(name);
  return ["boolean", "number", "string"].includes(typeof value) ? value : user.getString(name);
}

/** The name of a user's class: text that says all about it, for the functions below. */
function classOf(sharing, user) {
  return JSON.stringify([user.collection().id, sharing.fields.map((field) => [field, scalar(user, field)])]);
}

/**
 * A filter, {text, values}, for the records that users of this class may view, if these do not name them. Null where
 * the rule has changed so that there is no such class any more.
 */
function filterOfClass(app, guard, name) {
  const [collectionId, fields] = JSON.parse(name);
  const account = schema.current(app).users.find(({ id }) => id === collectionId);
  const sharing = account && sharingOf(app, guard, app.findCachedCollectionByNameOrId(collectionId));
  if (!sharing || JSON.stringify(fields.map(([field]) => field)) !== JSON.stringify(sharing.fields)) return null;
  // Nothing points to such a user.
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
 * {path, filter: {text, values}}: a filter for those records that the user may view among those at which this path finds
 * the user. What the rule asks of the link from the account's side holds for all of these, since it asks no more than
 * that there be one. Null unless there is exactly one such path.
 */
function filterOfLinked(guard, { fields, linked }, user) {
  if (linked.length !== 1) return null;
  const filter = filterOfUser(guard.rule, user, (operand) =>
    operand.startsWith(AUTH) && operand !== ME && !fields.includes(operand.slice(AUTH.length)) ? "id" : null,
  );
  return filter && { path: linked[0], filter };
}

/**
 * A filter, {text, values}, that holds for the records that this user may view, for rules that ask nothing of the
 * request but plain fields of the account; null for others.
 * `replaced(name)` gives the text that stands for a name instead.
 */
function filterOfUser(rule, user, replaced = () => null) {
  const values = {};
  const text = substitute(rule, (operand) => {
    if (!operand.startsWith("@request.")) return null;
    const other = replaced(operand);
    if (other) return other;
    const field = user && operand.startsWith(AUTH) ? operand.slice(AUTH.length) : "";
    if (field !== "id" && !(field && isScalar(user.collection(), field))) {
      values.impossible = true;
      return null;
    }
    const key = `of${field}`;
    values[key] = scalar(user, field);
    return `{:${key}}`;
  });
  return values.impossible ? null : { text, values };
}

module.exports = { sharingOf, classOf, filterOfClass, filterOfLinked, filterOfUser, relationsTo };
