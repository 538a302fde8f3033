// Check of the config against PocketBase's schema, before the server listens. A mismatch throws an error with the key
// in the config and a suggestion.

const { STATUS, fail, nearest } = require(`${__hooks}/gateway/config.js`);
const { rulesOf, unanswerable } = require(`${__hooks}/gateway/dependencies.js`);
const { uncovered } = require(`${__hooks}/gateway/covers.js`);

function check(app, config) {
  const accounts = config.users.map((account, i) =>
    checkAccount(app, account, `users${config.users.length > 1 ? `[${i}]` : ""}`),
  );
  checkOwners(config);
  for (const namespace in config.channels) {
    const where = `channels.${namespace}`;
    const { guard, perUser, emptyRequest } = config.channels[namespace];
    const isInUpdates = Object.values(config.updates).includes(namespace);
    for (const name of guard) {
      const found = collectionOf(app, name, `${where}.guard`, isInUpdates ? ofRecords : undefined);
      const why = unanswerable(rulesOf(found, isInUpdates));
      if (why && !emptyRequest) fail(where, why);
      if (isInUpdates && found.isView()) fail(`updates`, `"${name}" is a view, which has no changes of its own`);
    }
    for (const name in perUser) {
      const at = `${where}.perUser.${name}`;
      checkPointsTo(accounts, collectionOf(app, name, at, ofRecords), perUser[name], at);
    }
  }
  for (const name in config.relay) {
    const where = `relay.${name}`;
    const relayed = collectionOf(app, name, where, ofRecords);
    if (relayed.isView()) fail(where, "is a view, which has no changes of its own");
    const { to, trusted } = config.relay[name];
    for (const template of to) {
      const at = `${where}, "${template.template}"`;
      checkTemplate(app, config, relayed, template, at);
      const [guard] = config.channels[template.namespace].guard.map((its) => collectionOf(app, its, at));
      const why = trusted ? undefined : uncovered(app, relayed, template.path, guard || null, config);
      if (!why) continue;
      const vouched = `${name}: { to: ${JSON.stringify(to.map((one) => one.template))}, trusted: true }`;
      fail(
        at,
        `${why}. Relay to a channel with fewer subscribers, or confirm that all of them may view the records: ${vouched}`,
      );
    }
  }
}

/** Shows that personal channels and online statuses belong to collections in `users`. */
function checkOwners({ users, channels }) {
  const known = users.map(({ collection }) => collection);
  for (const namespace in channels) {
    const { own, guard } = channels[namespace];
    const where = `channels.${namespace}`;
    if (own && !known.includes(own)) fail(`${where}.own`, `"${own}" is not one of users${nearest(own, known)}`);
    const other = namespace === STATUS && guard.find((name) => !known.includes(name));
    if (other)
      fail(
        `${where}.guard`,
        `"${STATUS}" carries online statuses, and "${other}" is not one of users${nearest(other, known)}`,
      );
  }
}

function checkAccount(app, account, where) {
  const isAuth = (other) => other.isAuth();
  const users = collectionOf(app, account.collection, where, isAuth);
  if (!users.isAuth()) {
    fail(where, `"${users.name}" is not an auth collection${nearest(account.collection, namesOf(app, isAuth))}`);
  }
  const isDate = (field) => field.type() === "date";
  for (const name of ["bannedUntil", "mutedUntil"]) {
    const at = `${where}.${name}`;
    if (account[name] === undefined || isDate(fieldOf(users, account[name], at, isDate))) continue;
    fail(at, `"${account[name]}" of "${users.name}" is not a date${alternatives(users, account[name], isDate)}`);
  }
  if (account.blocked !== undefined) checkPointsTo([users], users, account.blocked, `${where}.blocked`);
  return users;
}

function checkPointsTo(accounts, collection, name, where) {
  const isUsable = (field) => field.type() === "relation" && accounts.some(({ id }) => id === field.collectionId);
  if (isUsable(fieldOf(collection, name, where, isUsable))) return;
  const of = accounts.map((account) => `"${account.name}"`).join(" or ");
  fail(
    where,
    `"${name}" of "${collection.name}" is not a relation to ${of}${alternatives(collection, name, isUsable)}`,
  );
}

function checkTemplate(app, config, relayed, { path, namespace }, where) {
  let at = relayed;
  let points = relayed.id; // the collection whose ids name the channels
  path.forEach((name, i) => {
    const isLast = i === path.length - 1;
    const field = fieldOf(at, name, where, isLast ? canNameChannels : isRelationField);
    const isRelation = isRelationField(field);
    points = name === "id" ? at.id : isRelation ? field.collectionId : null;
    if (isLast) return;
    if (!isRelation)
      fail(where, `"${name}" of "${at.name}" is not a relation${alternatives(at, name, isRelationField)}`);
    at = collectionOf(app, field.collectionId, where);
  });
  const { own } = config.channels[namespace];
  if (own && points && points !== collectionOf(app, own, where).id) {
    fail(where, `the channel belongs to users of "${own}", and the path does not lead to one`);
  }
}

/** The field with a name. A missing field is an error that suggests a usable field. */
function fieldOf(collection, name, where, isUsable) {
  const field = collection.fields.getByName(name);
  if (!field)
    fail(
      where,
      `the collection "${collection.name}" has no field "${name}"${alternatives(collection, name, isUsable)}`,
    );
  return field;
}

function alternatives(collection, name, isUsable) {
  return nearest(
    name,
    collection.fields.filter(isUsable).map((field) => field.name),
  );
}

function isRelationField(field) {
  return field.type() === "relation";
}

/** Whether a field's values may be the ids in channel names. */
function canNameChannels(field) {
  return !field.hidden && ["text", "relation", "select", "number", "email", "url"].includes(field.type());
}

/**
 * The collection with exactly the given name or id. PocketBase's lookup ignores letter case; PocketBase's events do
 * not. A missing collection is an error that suggests a usable collection.
 */
function collectionOf(app, name, where, isUsable = () => true) {
  try {
    const found = app.findCachedCollectionByNameOrId(name);
    if (found.name === name || found.id === name) return found;
  } catch {
    // not found: the error is below
  }
  fail(where, `there is no collection "${name}"${nearest(name, namesOf(app, isUsable))}`);
}

/** The names of the usable collections, without PocketBase's own. */
function namesOf(app, isUsable) {
  return app
    .findAllCollections()
    .filter((collection) => !collection.system && isUsable(collection))
    .map(({ name }) => name);
}

/** Whether a collection has its own records, and therefore events; a view has neither. */
function ofRecords(collection) {
  return !collection.isView();
}

module.exports = { check };
