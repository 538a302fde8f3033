// The application's gateway.config.js: read and checked once at the start, completed with defaults, and kept in the
// app's store. Every JavaScript engine uses the stored config; later changes of the file have no effect. startup.js may
// replace the stored config until PocketBase listens, so other modules call get() at each use.
//
//   users     [{collection, key, bannedUntil, mutedUntil, blocked}]; `key` is the prefix of these users' KEYs
//   guests    whether a connection without a token may connect
//   channels  namespace → {guard: [collection], own: collection or null, perUser: {collection: field}, emptyRequest}
//   updates   name of an updates channel → namespace
//   relay     collection → {to: [{template, before, path, after, namespace}], trusted}
//   outbox, delivery: as in the file

const KEY = "gateway.config";
/** Key in the app's store: the error in gateway.config.js, while the config before the mistake stays in force. */
const REFUSAL = "gateway.config.refusal";

const DEFAULTS = {
  outbox: { keepSeconds: 600, maxEventBytes: 256 * 1024 },
  delivery: { timeoutSeconds: 1, firstPauseSeconds: 1, lastPauseSeconds: 30, batch: 100 },
};
/** Limits of maxEventBytes: the gateway's maximum for one event (`DATA_MAX`), and a minimum with room for ids. */
const EVENT_BYTES = { min: 1024, max: 512 * 1024 };
const SECTIONS = ["users", "guests", "channels", "updates", "relay", "outbox", "delivery"];
const ACCOUNT = ["collection", "bannedUntil", "mutedUntil", "blocked"];
const CHANNEL = ["guard", "own", "perUser", "emptyRequest"];
const RELAY = ["to", "trusted"];
/** The channel kind for online statuses; events cannot be relayed to such channels. */
const STATUS = "status";

/** Visible ASCII without a colon; a leading "$" is reserved for the gateway. */
const NAME = /^(?!\$)[!-9;-~]{1,64}$/;
const TEMPLATE = /^([!-z|~]*)\{([\w.]+)\}([!-z|~]*)$/;

let read = { text: null, config: null };

/** The checked config of the process. */
function get() {
  const stored = $app.store().get(KEY);
  if (read.text !== stored) read = { text: stored, config: JSON.parse(stored) };
  return read.config;
}

function set(config) {
  $app.store().set(KEY, JSON.stringify(config));
}

/** Notes the error in gateway.config.js, for /readyz and doctor, while the last valid config is in force. */
function refused(err) {
  $app.store().set(REFUSAL, `${err.message} (the config before this change stays in force)`);
}

/** The noted error as a list; empty if the config in force is the file's. */
function refusal() {
  const message = $app.store().get(REFUSAL);
  return message ? [message] : [];
}

/** The content of gateway.config.js, checked and completed; throws an error that names the key. */
function checked(file) {
  if (!isObject(file)) fail("module.exports", "is not an object");
  if (Object.keys(file).length === 0)
    fail(
      "module.exports",
      "is missing or empty; the file has to say module.exports = { users: …, channels: …, relay: … }",
    );
  checkKeys(file, SECTIONS, "");
  const users = accounts(file.users);
  const channels = entries(file.channels, "channels", (entry, at, name) => channel(entry, at, name, users));
  const named = (name, at) => {
    if (!Object.hasOwn(channels, name))
      fail(at, `there is no channel ${quoted(name)}${nearest(name, Object.keys(channels))}`);
    return channels[name];
  };
  const updates = entries(file.updates || {}, "updates", (namespace, at, name) => {
    if (!NAME.test(name)) fail(at, "is not the name of a channel: visible ASCII without a colon is needed");
    if (named(text(namespace, at), at).own) fail(at, `${quoted(namespace)} has no guard`);
    if (namespace === STATUS)
      fail(at, `"${STATUS}" carries online statuses; choose a kind of channel with another guard`);
    return namespace;
  });
  const relay = entries(file.relay || {}, "relay", (entry, at) => relayed(entry, at, named, Object.keys(channels)));
  const guests = file.guests === undefined ? false : bool(file.guests, "guests");
  return { users, guests, channels, updates, relay, outbox: numbers("outbox"), delivery: numbers("delivery") };

  function numbers(section) {
    const given = file[section] === undefined ? {} : file[section];
    if (!isObject(given)) fail(section, "is not an object");
    checkKeys(given, Object.keys(DEFAULTS[section]), section);
    const all = { ...DEFAULTS[section], ...given };
    for (const name in all) {
      if (!Number.isInteger(all[name]) || all[name] < 1) {
        fail(`${section}.${name}`, `${JSON.stringify(all[name])} is not a whole number above 0`);
      }
    }
    const { maxEventBytes: bytes } = all;
    if (bytes < EVENT_BYTES.min || bytes > EVENT_BYTES.max) {
      fail(`${section}.maxEventBytes`, `${bytes} is not between ${EVENT_BYTES.min} and ${EVENT_BYTES.max}`);
    }
    return all;
  }
}

function accounts(users) {
  if (users === undefined) fail("users", 'is missing; name the auth collection, as in users: "users"');
  const list = Array.isArray(users) ? users : [users];
  if (list.length === 0) fail("users", "names no auth collection");
  const all = list.map((entry, i) => {
    const at = Array.isArray(users) ? `users[${i}]` : "users";
    const account = typeof entry === "string" ? { collection: entry } : entry;
    if (!isObject(account)) fail(at, "is neither the name of an auth collection nor an object with one");
    checkKeys(account, ACCOUNT, at);
    if (account.collection === undefined) fail(`${at}.collection`, "is missing");
    for (const name in account) text(account[name], `${at}.${name}`);
    return { ...account, key: i === 0 ? "" : `${account.collection}/` };
  });
  const names = all.map(({ collection }) => collection);
  names.forEach((name, i) => {
    if (names.indexOf(name) < i) fail("users", `names ${quoted(name)} twice`);
  });
  return all;
}

/** An entry of `channels`. schema_check.js compares the entry with `users`, once the users' collections exist. */
function channel(entry, at, name, users) {
  if (!NAME.test(name)) fail(at, "is not a channel's kind: visible ASCII without a colon, at most 64 characters");
  if (!isObject(entry)) fail(at, 'is not an object such as { guard: "rooms" } or { own: true }');
  checkKeys(entry, CHANNEL, at);
  if ((entry.guard === undefined) === (entry.own === undefined)) {
    fail(at, "needs either a guard (a collection whose viewRule decides) or own: true");
  }
  const perUser = entry.perUser === undefined ? {} : entries(entry.perUser, `${at}.perUser`, text);
  const emptyRequest = entry.emptyRequest === undefined ? false : bool(entry.emptyRequest, `${at}.emptyRequest`);
  if (entry.own !== undefined) {
    if (name === STATUS)
      fail(at, `"${STATUS}" carries online statuses; set the users' collection as the guard instead of own`);
    if (entry.perUser !== undefined || entry.emptyRequest !== undefined)
      fail(at, "perUser and emptyRequest need a guard; remove them, or set a guard instead of own");
    const own = entry.own === true ? users[0].collection : text(entry.own, `${at}.own`);
    return { guard: [], own, perUser, emptyRequest };
  }
  const guard = name === STATUS && Array.isArray(entry.guard) ? entry.guard : [entry.guard];
  guard.forEach((collection) => text(collection, `${at}.guard`));
  return { guard, own: null, perUser, emptyRequest };
}

function relayed(entry, at, named, kinds) {
  const templates = isObject(entry) ? entry.to : entry;
  if (isObject(entry)) checkKeys(entry, RELAY, at);
  if (!Array.isArray(templates))
    fail(at, `a list of channels is needed, as in ["room:{id}"]; this is ${JSON.stringify(templates)}`);
  const trusted = isObject(entry) && entry.trusted !== undefined ? bool(entry.trusted, `${at}.trusted`) : false;
  return { to: templates.map((template) => parsed(template, at, named, kinds, trusted)), trusted };
}

/**
 * "room:{message.room}" → {before: "room:", path: ["message", "room"], after: "", namespace: "room"}
 *
 * More text around the braces is refused without `trusted`: with "room:a{room}" the record of room "x" would go to the
 * subscribers of room "ax", and no rule proves their permission.
 */
function parsed(template, at, named, kinds, trusted) {
  const where = `${at}, ${JSON.stringify(template)}`;
  const example = quoted(`${kinds[0] ?? "room"}:{id}`);
  const [, before, path, after] = (typeof template === "string" && TEMPLATE.exec(template)) || [];
  if (path === undefined)
    fail(
      where,
      `is not a channel template; it should look like ${example}, with one field in braces and without blanks`,
    );
  const [, namespace] = /^([^:]*):/.exec(before) || [];
  if (namespace === undefined) fail(where, `names no kind of channel before a colon; it should look like ${example}`);
  named(namespace, where);
  if (namespace === STATUS) fail(where, `"${STATUS}" carries online statuses; nothing can be relayed there`);
  if (!trusted && (before !== `${namespace}:` || after !== "")) {
    const right = `${namespace}:{${path}}`;
    fail(
      where,
      `has other text around the braces, so its channels are those of other ids; it should look like ${quoted(right)}. ` +
        "If the other ids are intended, and all subscribers of these channels may view the records, confirm it with trusted: true",
    );
  }
  return { template, before, path: path.split("."), after, namespace };
}

// ---- parts of the checks

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function entries(object, at, check) {
  if (!isObject(object)) fail(at, object === undefined ? "is missing" : "is not an object");
  const all = {};
  for (const name in object) all[name] = check(object[name], `${at}.${name}`, name);
  return all;
}

function text(value, at) {
  if (typeof value !== "string" || value === "") fail(at, `${JSON.stringify(value)} is not a name`);
  return value;
}

function bool(value, at) {
  if (typeof value !== "boolean") fail(at, `${JSON.stringify(value)} is neither true nor false`);
  return value;
}

function checkKeys(object, known, at) {
  for (const name in object) {
    if (!known.includes(name)) fail(at ? `${at}.${name}` : name, `is not a setting${nearest(name, known)}`);
  }
}

function quoted(name) {
  return JSON.stringify(name);
}

/** "; did you mean …?" with the most similar name, or a list of all names where every name differs much. */
function nearest(name, names) {
  const near = names
    .map((other) => [distance(name.toLowerCase(), other.toLowerCase()), other])
    .sort((a, b) => a[0] - b[0]);
  if (near.length === 0) return "";
  const [differences, best] = near[0];
  return differences <= Math.max(2, name.length / 3)
    ? `; did you mean ${quoted(best)}?`
    : `; there are ${names.map(quoted).join(", ")}`;
}

/** Single-character edits between two texts (Levenshtein). */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}

function fail(where, problem) {
  throw new Error(`gateway.config.js: ${where}: ${problem}`);
}

module.exports = { STATUS, get, set, refused, refusal, checked, fail, nearest };
