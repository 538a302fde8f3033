// Check of the config against PocketBase's schema, before the server listens. A mismatch throws an error with the key
// in the config and a suggestion.

const { fail, nearest } = require(`${__hooks}/gateway/config.js`);
const { rulesOf, unanswerable } = require(`${__hooks}/gateway/dependencies.js`);
const { uncovered } = require(`${__hooks}/gateway/covers.js`);

function check(app, config) {
  const accounts = config.users.map((account, i) => checkAccount(app, account, `users${config.users.length > 1 ? `[${i}]` : ""}`));
  for (const namespace in config.channels) {
    const where = `channels.${namespace}`;
    const { guard, perUser, emptyRequest } = config.channels[namespace];
    const isInUpdates = Object.values(config.updates).includes(namespace);
    for (const name of guard) {
      const found = collection(app, name, `${where}.guard`);
      const why = unanswerable(rulesOf(found, isInUpdates));
      if (why && !emptyRequest) fail(where, why);
      if (isInUpdates && found.isView()) fail(`updates`, `"${name}" is a view, which has no changes of its own`);
    }
    for (const name in perUser) {
      const at = `${where}.perUser.${name}`;
      checkPointsTo(accounts, collection(app, name, at), perUser[name], at);
    }
  }
  for (const name in config.relay) {
    const where = `relay.${name}`;
    const relayed = collection(app, name, where);
    if (relayed.isView()) fail(where, "is a view, which has no changes of its own");
    const { to, trusted } = config.relay[name];
    for (const template of to) {
      const at = `${where}, "${template.template}"`;
      checkTemplate(app, config, relayed, template, at);
      const [guard] = config.channels[template.namespace].guard.map((name) => collection(app, name, at));
      const why = trusted ? undefined : uncovered(app, relayed, template.path, guard || null, config);
      if (!why) continue;
      const vouched = `${name}: { to: ${JSON.stringify(to.map(({ template }) => template))}, trusted: true }`;
      fail(at, `${why}. Relay to a channel with fewer subscribers, or confirm that all of them may view the records: ${vouched}`);
    }
  }
}

function checkAccount(app, account, where) {
  const users = collection(app, account.collection, where);
  if (!users.isAuth()) {
    const others = app.findAllCollections("auth").map(({ name }) => name);
    fail(where, `"${users.name}" is not an auth collection${nearest(account.collection, others)}`);
  }
  for (const name of ["bannedUntil", "mutedUntil"]) {
    if (account[name] !== undefined && fieldOf(users, account[name], `${where}.${name}`).type() !== "date") {
      fail(`${where}.${name}`, `"${account[name]}" of "${users.name}" is not a date`);
    }
  }
  if (account.blocked !== undefined) checkPointsTo([users], users, account.blocked, `${where}.blocked`);
  return users;
}

function checkPointsTo(accounts, collection, name, where) {
  const field = fieldOf(collection, name, where);
  if (field.type() === "relation" && accounts.some(({ id }) => id === field.collectionId)) return;
  fail(where, `"${name}" of "${collection.name}" is not a relation to ${accounts.map(({ name }) => `"${name}"`).join(" or ")}`);
}

function checkTemplate(app, config, relayed, { path, namespace }, where) {
  let at = relayed;
  let points = relayed.id; // the collection whose ids name the channels
  path.forEach((name, i) => {
    const field = fieldOf(at, name, where);
    const isRelation = field.type() === "relation";
    points = name === "id" ? at.id : isRelation ? field.collectionId : null;
    if (i === path.length - 1) return;
    if (!isRelation) fail(where, `"${name}" of "${at.name}" is not a relation`);
    at = collection(app, field.collectionId, where);
  });
  const { own } = config.channels[namespace];
  if (own && points && points !== collection(app, own, where).id) {
    fail(where, `the channel belongs to users of "${own}", and the path does not lead to one`);
  }
}

function fieldOf(collection, name, where) {
  const field = collection.fields.getByName(name);
  if (!field) fail(where, `the collection "${collection.name}" has no field "${name}"${nearest(name, collection.fields.fieldNames())}`);
  return field;
}

/** The collection with exactly this name or id. PocketBase's lookup ignores letter case; PocketBase's events do not. */
function collection(app, name, where) {
  try {
    const found = app.findCachedCollectionByNameOrId(name);
    if (found.name === name || found.id === name) return found;
  } catch {
    // not found: the error is below
  }
  const names = app.findAllCollections().filter(({ system }) => !system).map(({ name }) => name);
  fail(where, `there is no collection "${name}"${nearest(name, names)}`);
}

module.exports = { check };
