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
  const [fields, paths] = [new Set(), new Set(named)];

  // What points to the user or to the guarded record has to concern only the two.
  const link = (segment) => {
    const [, from] = /^(\w+)_via_\w+$/.exec(segment) || [];
    const concerned = ({ namespace: of, cause }) => of === namespace || cause === "user";
    const triggers = from ? access.triggers(app, from).filter(concerned) : [];
    if (triggers.length === 0 || triggers.some(({ cause }) => cause !== "member")) return false;
    for (const { user, channel } of triggers) paths.add(channel === "id" ? user : `${from}_via_${channel}.${user}`);
    return true;
  };
  const isOfClass = ({ name, sign, other }) => {
    const path = name.split(".");
    if (name === ME) {
      if (!other) return false; // compared with a certain user's
      const [first, ...rest] = other.split(".");
      return rest.length === 0 ? named.includes(first.replace(/:each$/, "")) : link(first);
    }
    if (name.startsWith(AUTH)) {
      if (path.length > 3) return sign !== undefined && sign[0] === "?" && link(path[2]);
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
  return all.every(isOfClass) ? { fields: [...fields].sort(), paths: [...paths] } : null;
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
 * A filter, {text, values}, that holds for the records that this user may view, for rules that ask nothing of the
 * request but plain fields of the account; null for others.
 */
function filterOfUser(rule, user) {
  const values = {};
  const text = substitute(rule, (operand) => {
    if (!operand.startsWith("@request.")) return null;
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

module.exports = { sharingOf, classOf, filterOfClass, filterOfUser, relationsTo };
