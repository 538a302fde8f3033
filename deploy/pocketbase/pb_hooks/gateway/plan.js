// The config with current names: the ids kept at the start, looked up in the current schema. schema.js describes the
// shape. A part with a missing collection or field is left out and named in `problems`.

const { STATUS } = require(`${__hooks}/gateway/config.js`);
const { uncovered } = require(`${__hooks}/gateway/covers.js`);
const { rulesOf, unanswerable } = require(`${__hooks}/gateway/dependencies.js`);

/** {users, guests, channels, updates, relay, problems, gone: names of missing collections}. */
function planned(app, config, bound) {
  const names = new Names(app, bound);
  const users = config.users.map((account) => accountOf(names, account)).filter(Boolean);
  const channels = {};
  for (const namespace in config.channels) channels[namespace] = channelOf(names, config, namespace, users);
  const relay = {};
  for (const name in config.relay) {
    const collection = names.collection(name, `relay.${name}`);
    if (collection) relay[collection.name] = templatesOf(names, config, { users, channels }, name, collection);
  }
  const { problems, gone } = names;
  return { users, guests: config.guests, channels, updates: config.updates, relay, problems, gone };
}

/** Lookup of the config's names; collects the missing names. */
class Names {
  problems = [];
  gone = [];

  constructor(app, { collections, fields }) {
    Object.assign(this, { app, collections, fields });
  }

  collection(name, where) {
    const found = this.find(this.collections[name]) || this.find(name);
    if (found) return found;
    const what = this.collections[name] ? `the collection "${name}" is gone` : `there is no collection "${name}"`;
    this.problems.push(`${where}: ${what}`);
    this.gone.push(name);
    return null;
  }

  field(collection, name, where) {
    const id = this.fields[`${collection.id} ${name}`];
    const found = (id && collection.fields.getById(id)) || collection.fields.getByName(name);
    const what = id
      ? `the field "${name}" of "${collection.name}" is gone`
      : `the collection "${collection.name}" has no field "${name}"`;
    if (!found) this.problems.push(`${where}: ${what}`);
    return found || null;
  }

  /** A path of fields by current names; null where a field is missing. */
  path(collection, path, where) {
    const names = [];
    let at = collection;
    for (const step of path) {
      const field = at && this.field(at, step, where);
      if (!field) return null;
      names.push(field.name);
      at = field.type() === "relation" ? this.find(field.collectionId) : null;
    }
    return names;
  }

  find(nameOrId) {
    try {
      return nameOrId ? this.app.findCachedCollectionByNameOrId(nameOrId) : null;
    } catch {
      return null;
    }
  }
}

function accountOf(names, { collection: name, key, ...fields }) {
  const collection = names.collection(name, "users");
  if (!collection) return null;
  const account = { id: collection.id, name: collection.name, key };
  for (const use in fields) {
    const field = names.field(collection, fields[use], `users.${use}`);
    if (field) account[use] = field.name;
  }
  return account;
}

function channelOf(names, config, namespace, users) {
  const { guard, own, perUser, emptyRequest } = config.channels[namespace];
  const where = `channels.${namespace}`;
  const collections = guard.map((name) => names.collection(name, where)).filter(Boolean);
  const isInUpdates = Object.values(config.updates).includes(namespace);
  for (const collection of collections) {
    const why = unanswerable(rulesOf(collection, isInUpdates));
    if (why && !emptyRequest) names.problems.push(`${where}: ${why}`);
  }
  const guards = collections.map(({ id, name }) => {
    const account = namespace === STATUS && users.find((user) => user.id === id);
    return { id, name, key: account ? account.key : "" };
  });
  const hints = {};
  for (const name in perUser) {
    const collection = names.collection(name, `${where}.perUser`);
    const field = collection && names.field(collection, perUser[name], `${where}.perUser.${name}`);
    if (field) hints[collection.name] = field.name;
  }
  const owners = own && names.collection(own, where);
  return { guards, own: owners ? owners.id : null, perUser: hints };
}

/** The templates with an existing guard, if subscribers provably may view the records or the config has `trusted`. */
function templatesOf(names, config, { users, channels }, name, collection) {
  const { to, trusted } = config.relay[name];
  const templates = [];
  for (const { template, path: asWritten, before, after, namespace } of to) {
    const where = `relay.${name}, "${template}"`;
    const path = names.path(collection, asWritten, where);
    const { guards, own } = channels[namespace];
    if (!path || (guards.length === 0 && !own)) continue;
    const guard = own ? null : names.find(guards[0].id);
    const why = trusted ? undefined : uncovered(names.app, collection, path, guard, { users, guests: config.guests });
    if (why) names.problems.push(`${where}: nothing is relayed to this channel now, since ${why}`);
    else templates.push({ before, path, after, namespace, isPlain: isPlain(collection, path) });
  }
  return templates;
}

/** Whether a path is a single-value field of the record itself. */
function isPlain(collection, [name, ...more]) {
  const field = collection.fields.getByName(name);
  return more.length === 0 && (field.type() === "text" || (field.type() === "relation" && !field.isMultiple()));
}

module.exports = { planned };
