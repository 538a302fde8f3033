// What must be right before the server listens. Where it is not, PocketBase says so and does not start.

const MIN_SECRET = 32;
const NUMBERS = {
  outbox: ["keepSeconds"],
  delivery: ["timeoutSeconds", "firstPauseSeconds", "lastPauseSeconds", "batch"],
};

// Other commands (superuser, migrate) load the hooks too, and need none of this.
function serving() {
  return $os.args.includes("serve");
}

/** Run while the hooks load: the config, if it and the environment are in order. */
function load() {
  try {
    if (serving()) checkEnvironment();
    const config = require(`${__hooks}/gateway.config.js`);
    checkShape(config);
    return config;
  } catch (err) {
    if (!serving()) throw err;
    // PocketBase would print the exception, leave our hooks out and start all the same.
    console.error(`gateway: ${err.message}`);
    $os.exit(1);
  }
}

function checkEnvironment() {
  const secret = $os.getenv("GATEWAY_SECRET");
  if (secret.length < MIN_SECRET) {
    const now = secret ? `has ${secret.length} characters` : "is not set";
    throw new Error(
      `GATEWAY_SECRET ${now}; it needs at least ${MIN_SECRET}. ` +
        `Make one with "openssl rand -hex 32" and give the same to the gateway.`,
    );
  }
  const url = $os.getenv("GATEWAY_URL");
  if (url && !/^https?:\/\/[^/]/.test(url)) {
    throw new Error(`GATEWAY_URL is "${url}"; it should look like "http://127.0.0.1:8000".`);
  }
}

function checkShape(config) {
  for (const section of ["users", "channels", "relay", "outbox", "delivery"]) {
    if (!config[section]) fail(section, "is missing");
  }
  if (!config.users.collection) fail("users.collection", "is missing");
  for (const section in NUMBERS) {
    for (const name of NUMBERS[section]) {
      const value = config[section][name];
      if (!Number.isInteger(value) || value < 1) fail(`${section}.${name}`, `${value} is not a whole number above 0`);
    }
  }
}

/** Run after bootstrap: the outbox, and the collections and fields that the config names. */
function checkSchema(app) {
  if (!serving()) return;
  // The server is about to do this anyway; what a new migration makes must be there when we look.
  app.runAllMigrations();

  const config = require(`${__hooks}/gateway.config.js`);
  const { parse } = require(`${__hooks}/gateway/channels.js`);
  const { TABLE } = require(`${__hooks}/gateway/outbox.js`);

  if (!app.hasTable(TABLE)) {
    throw new Error(`gateway: there is no table ${TABLE}; copy pb_migrations/*_gateway_outbox.js as well`);
  }
  const users = checkUsers(app, config.users);
  for (const namespace in config.channels) {
    const { own, guard, perUser = {} } = config.channels[namespace];
    if (own) {
      if (own !== true || guard) fail(`channels.${namespace}`, "has either a guard or own: true");
      continue;
    }
    collection(app, guard, `channels.${namespace}.guard`);
    for (const name in perUser) {
      const where = `channels.${namespace}.perUser.${name}`;
      checkPointsTo(users, collection(app, name, where), perUser[name], where);
    }
  }
  for (const [name, namespace] of Object.entries(config.updates || {})) {
    if (!/^[^$:\s][^:\s]*$/.test(name)) fail("updates", `"${name}" is not the name of a channel without a colon`);
    const guarded = config.channels[namespace] && config.channels[namespace].guard;
    if (!guarded) fail(`updates.${name}`, `there is no channel "${namespace}" with a guard`);
    if (collection(app, guarded, `updates.${name}`).isView()) {
      fail(`updates.${name}`, `"${guarded}" is a view, which has no changes of its own`);
    }
  }
  for (const name in config.relay) {
    const where = `relay.${name}`;
    const relayed = collection(app, name, where);
    if (relayed.isView()) fail(where, "is a view, which has no changes of its own");
    for (const template of config.relay[name]) {
      const { before, path } = parse(template);
      const namespace = before.split(":")[0];
      if (!config.channels[namespace]) fail(`${where}, "${template}"`, `there is no channel "${namespace}"`);
      checkPath(app, relayed, path, `${where}, "${template}"`);
    }
  }
}

function checkUsers(app, config) {
  const users = collection(app, config.collection, "users.collection");
  if (!users.isAuth()) fail("users.collection", `"${users.name}" is not an auth collection`);
  for (const name of ["bannedUntil", "mutedUntil"]) {
    if (config[name] === undefined) continue;
    if (fieldOf(users, config[name], `users.${name}`).type() !== "date") {
      fail(`users.${name}`, `"${config[name]}" of "${users.name}" is not a date`);
    }
  }
  if (config.blocked !== undefined) checkPointsTo(users, users, config.blocked, "users.blocked");
  return users;
}

function checkPointsTo(users, collection, name, where) {
  const field = fieldOf(collection, name, where);
  if (field.type() !== "relation" || field.collectionId !== users.id) {
    fail(where, `"${name}" of "${collection.name}" is not a relation to "${users.name}"`);
  }
}

function fieldOf(collection, name, where) {
  const field = collection.fields.getByName(name);
  if (!field) fail(where, `the collection "${collection.name}" has no field "${name}"`);
  return field;
}

function checkPath(app, start, path, where) {
  let at = start;
  path.forEach((name, i) => {
    const field = fieldOf(at, name, where);
    if (i === path.length - 1) return;
    if (field.type() !== "relation") fail(where, `"${name}" of "${at.name}" is not a relation`);
    at = collection(app, field.collectionId, where);
  });
}

function collection(app, name, where) {
  try {
    return app.findCachedCollectionByNameOrId(name);
  } catch {
    fail(where, `there is no collection "${name}"`);
  }
}

function fail(where, what) {
  throw new Error(`gateway.config.js: ${where}: ${what}`);
}

module.exports = { load, checkSchema };
