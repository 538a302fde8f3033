// Channels of updates: each tells a user of all records of a guard that he may view, and of no other.
//
// What the gateway has to know is which these are. Most users see much the same, so it keeps that once: a *class* is
// all users with the same values in those fields that the rule asks of the account. What one of them sees beyond, or
// does not see, comes from records that name him: memberships, or the guarded record itself. Where the rule asks for
// more than that, there are no classes, and every record is looked at for every user.

const access = require(`${__hooks}/gateway/access.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { operands, substitute } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
const AUTH = "@request.auth.";
/** Holds for whoever asks. */
const SIGNED_IN = /@request\.auth\.id\s*!=\s*(""|'')/g;
/** Fields whose value stands in a rule as it is. */
const SCALARS = ["text", "email", "url", "editor", "date", "autodate", "select", "bool", "number"];
/** Records that are looked at in one query. */
const PAGE = 500;

function serves(app, channel) {
  return typeof channel === "string" && Object.hasOwn(schema.current(app).updates, channel);
}

/** The updates channels that tell of this collection's records. */
function telling(app, collection) {
  const { channels, updates } = schema.current(app);
  return Object.keys(updates).filter((name) => channels[updates[name]].guards.some((guard) => guard.name === collection));
}

/** Whether a channel of updates tells of this collection. */
function tells(app, collection) {
  return telling(app, collection).length > 0;
}

/** What the gateway gets beside a change of such a record; `users`: the KEYs of those whom it names, now or in `original`. */
function of(app, record, original) {
  const users = new Set();
  for (const { name, key } of relationsToUsers(app, record.collection())) {
    const ids = [record, original].flatMap((version) => (version ? version.getStringSlice(name) : []));
    ids.forEach((id) => users.add(key + id));
  }
  return { channels: telling(app, record.tableName()), users: [...users] };
}

/** The fields of a collection that point to users, {name, id: of the auth collection, key}. */
function relationsToUsers(app, collection) {
  const { users } = schema.current(app);
  const fields = [];
  for (const field of collection.fields) {
    const account = field.type() === "relation" && users.find(({ id }) => id === field.collectionId);
    if (account) fields.push({ name: field.name, id: account.id, key: account.key });
  }
  return fields;
}

/**
 * {namespace, collection, users: of each asked user, or null if there is none, {class, yes, no}, classes}.
 *
 *   class    names the user's class; null: there are no classes
 *   yes, no  those records that he sees and that he does not see, of all that name him, or of all where there are
 *            no classes, `no` being left out
 *   classes  class → what its users see, whom no record names
 */
function visible(app, channel, users, ids) {
  const guard = guardOf(app, channel);
  const classes = {};
  const answers = ids.map((id) => {
    if (!users.has(id)) return null;
    const user = users.get(id);
    const sharing = sharingOf(app, guard, user);
    const info = new RequestInfo({ auth: user, method: "GET" });
    const linked = linkedAndVisible(app, { ...guard, sharing }, user);
    const mayView = (record) => linked.has(record.id) || app.canAccessRecord(record, info, guard.rule);
    if (!sharing) return { class: null, yes: all(app, guard, mayView), no: [] };
    const { key, values } = classOf(sharing, user);
    if (!classes[key]) classes[key] = ofClass(app, { ...guard, sharing }, values);
    const [yes, no] = [[], []];
    for (const record of naming(app, { ...guard, sharing }, user)) (mayView(record) ? yes : no).push(record.id);
    return { class: key, yes, no };
  });
  return { namespace: guard.namespace, collection: guard.collection.name, users: answers, classes };
}

/**
 * {collection, results: of each check whether the user may view the record, records: id → what it is now, of those
 * that anybody may}. "~ID" asks for the class of the user instead: for those in it whom the record does not name.
 */
function view(app, channel, users, checks) {
  const guard = guardOf(app, channel);
  const records = new Map();
  const ids = [...new Set(checks.map((check) => check.record))];
  for (const record of app.findRecordsByIds(guard.collection.name, ids)) records.set(record.id, record);
  const seen = {};
  const results = checks.map((check) => {
    const record = records.get(check.record);
    const key = check.user.replace(/^~/, "");
    const user = users.get(key);
    if (!record || !users.has(key) || !mayView(app, guard, user, check.user[0] === "~", record)) return false;
    seen[record.id] = record.fresh();
    return true;
  });
  return { collection: guard.collection.name, results, records: seen };
}

function mayView(app, guard, user, asClass, record) {
  if (!asClass) return app.canAccessRecord(record, new RequestInfo({ auth: user, method: "GET" }), guard.rule);
  const sharing = sharingOf(app, guard, user);
  if (!sharing) return false;
  return ofClass(app, { ...guard, sharing }, classOf(sharing, user).values, record.id).length > 0;
}

function guardOf(app, channel) {
  const { channels, updates } = schema.current(app);
  const namespace = updates[channel];
  const [guard] = channels[namespace].guards;
  if (!guard) throw new Error(`gateway: the guard of "${namespace}" is gone`);
  const collection = app.findCachedCollectionByNameOrId(guard.id);
  return { namespace, collection, rule: collection.viewRule };
}

let known = { version: null, sharing: {} };

/** As `analysed`, remembered until a collection changes; null for guests. */
function sharingOf(app, { namespace, collection }, user) {
  if (!user || user.isSuperuser()) return null;
  const { version } = schema.current(app);
  if (known.version !== version) known = { version, sharing: {} };
  const users = user.collection();
  const place = `${namespace} ${users.id}`;
  if (!(place in known.sharing)) known.sharing[place] = analysed(app, namespace, collection, users);
  return known.sharing[place];
}

/**
 * How the rule depends on who asks, if that is no more than classes can express; else null.
 *
 *   fields  of the account
 *   links   {collection, user, channel}: records that bring a user and a guarded record together
 *   named   fields of the guarded record that point to users
 *   quick   whether the only link is one that the rule looks at from the account's side, and it looks at nothing that
 *           points to the guarded record
 */
function analysed(app, namespace, collection, users) {
  const named = relationsToUsers(app, collection).filter(({ id }) => id === users.id).map(({ name }) => name);
  const [fields, links] = [new Set(), new Map()];
  let [fromAccount, fromGuard] = [false, false];

  // What points to the user or to the guarded record has to concern only the two.
  const link = (segment) => {
    const [, from] = /^(\w+)_via_\w+$/.exec(segment) || [];
    const triggers = from ? access.triggers(app, from).filter((trigger) => trigger.namespace === namespace || trigger.cause === "user") : [];
    if (triggers.length === 0 || triggers.some(({ cause }) => cause !== "member")) return false;
    for (const { user, channel } of triggers) links.set(`${from} ${user} ${channel}`, { collection: from, user, channel });
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
      if (path.length > 3) {
        fromAccount = true;
        return sign !== undefined && sign[0] === "?" && link(path[2]);
      }
      const field = users.fields.getByName(path[2]);
      const single = field && SCALARS.includes(field.type()) && !(field.maxSelect > 1);
      if (single) fields.add(path[2]);
      return single;
    }
    if (name.startsWith("@request.")) return false;
    if (name[0] === "@" || path.length === 1) return true;
    fromGuard = true;
    const [, from] = /^(\w+)_via_\w+$/.exec(path[0]) || [];
    return !from || !access.triggers(app, from).some(({ cause }) => cause === "member") || link(path[0]);
  };
  const all = operands((collection.viewRule || "").replace(SIGNED_IN, "true = true"));
  if (!all.every(isOfClass)) return null;
  const quick = links.size === 1 && fromAccount && !fromGuard;
  return { fields: [...fields].sort(), links: [...links.values()], named, quick };
}

function classOf(sharing, user) {
  const values = sharing.fields.map((field) => {
    const value = user.get(field);
    return ["boolean", "number", "string"].includes(typeof value) ? value : user.getString(field);
  });
  return { key: $security.sha256(JSON.stringify([user.collection().id, values])).slice(0, 16), values };
}

/** The IDs of the records (or of this one, if it is among them) that users of a class see whom no record names. */
function ofClass(app, guard, values, id) {
  // Nothing points to such a user.
  return find(app, guard, { me: $security.randomString(15), values, linked: "null" }, id && "id = {:id}", id);
}

/**
 * The IDs of records that a link brings together with the user and that he may view: in one query, where the rule
 * allows it. What it asks of the link from the account's side holds for all of these, since it asks for no more
 * than that there be one.
 */
function linkedAndVisible(app, guard, user) {
  if (!guard.sharing || !guard.sharing.quick) return new Set();
  const [link] = guard.sharing.links;
  const { values } = classOf(guard.sharing, user);
  const isLinked = `${link.collection}_via_${link.channel}.${link.user} ?= {:me}`;
  return new Set(find(app, guard, { me: user.id, values, linked: "id" }, isLinked));
}

/** The IDs of what a user sees for whom the rule's names stand for these values, `linked` for what points to him. */
function find(app, { collection, rule, sharing }, { me, values, linked }, condition, id = "") {
  if (rule === null) return [];
  const parameters = { me, id };
  values.forEach((value, i) => (parameters[`v${i}`] = value));
  const mine = substitute(rule, (name) => {
    if (name === ME) return "{:me}";
    if (!name.startsWith(AUTH)) return null;
    const i = sharing.fields.indexOf(name.slice(AUTH.length));
    return i < 0 ? linked : `{:v${i}}`;
  });
  const filter = [mine && `(${mine})`, condition].filter(Boolean).join(" && ");
  return app.findRecordsByFilter(collection.name, filter, "", 0, 0, parameters).map((record) => record.id);
}

/** The guarded records that name the user, or that others bring together with him. */
function naming(app, { collection, sharing }, user) {
  const ids = new Set();
  for (const link of sharing.links) {
    const found = app.findRecordsByFilter(link.collection, `${link.user} ?= {:user}`, "", 0, 0, { user: user.id });
    for (const record of found) {
      const values = link.channel === "id" ? [record.id] : record.getStringSlice(link.channel);
      values.forEach((id) => ids.add(id));
    }
  }
  const records = ids.size > 0 ? [...app.findRecordsByIds(collection.name, [...ids])] : [];
  for (const field of sharing.named) {
    const found = app.findRecordsByFilter(collection.name, `${field} ?= {:user}`, "", 0, 0, { user: user.id });
    for (const record of found) {
      if (!ids.has(record.id)) records.push(record);
      ids.add(record.id);
    }
  }
  return records;
}

/** The IDs of all records of which `wanted(record)` holds. */
function all(app, { collection }, wanted) {
  const found = [];
  let last = "";
  for (;;) {
    const page = app.findRecordsByFilter(collection.name, "id > {:last}", "id", PAGE, 0, { last });
    for (const record of page) if (wanted(record)) found.push(record.id);
    if (page.length < PAGE) return found;
    last = page[page.length - 1].id;
  }
}

module.exports = { serves, tells, of, visible, view };
