// What must be right before the server listens: PocketBase's version, the environment, the config, the schema. Where
// something is not, PocketBase says so and does not start.

const config = require(`${__hooks}/gateway/config.js`);

/** The oldest PocketBase that passes this project's tests, and the newest that was tried. */
const OLDEST = "0.34.2";
const NEWEST = "0.40.6";

/** In PocketBase's data folder: the last config that was in force, and the process that it was in force in. */
const LAST_GOOD = "gateway.config.last.json";

// Other commands (superuser, migrate) load the hooks too, and need none of this.
function serving() {
  return $os.args.includes("serve");
}

/** Run while the hooks load: reads the config, if it and the environment are in order. */
function load() {
  try {
    if (serving()) {
      checkVersion();
      checkEnvironment();
    }
  } catch (err) {
    refuse(err);
  }
  try {
    config.set(config.checked(readConfig()));
  } catch (err) {
    if (!serving()) throw err;
    if (!goOnWithLastGood(err)) refuse(err);
  }
}

function isThere(file) {
  try {
    return $os.stat(file) !== null;
  } catch {
    return false;
  }
}

function readConfig() {
  try {
    return require(`${__hooks}/gateway.config.js`);
  } catch (err) {
    if (!isThere(`${__hooks}/gateway.config.js`)) throw new Error("gateway.config.js is missing: copy it into pb_hooks as well");
    throw new Error(`gateway.config.js is not valid JavaScript: ${String(err).replace(/^GoError: /, "")}`);
  }
}

/** PocketBase would print an exception, leave our hooks out and start all the same. */
function refuse(err) {
  console.error(`gateway: ${err.message}`);
  $os.exit(1);
}

function checkVersion() {
  const { version } = $app.rootCmd || {};
  const parts = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version || "");
  if (!parts) {
    console.log("gateway: this PocketBase does not tell its version; the hooks were made for 0.40 and need " + OLDEST);
    return;
  }
  const now = number(parts.slice(1));
  if (now < number(OLDEST.split("."))) {
    throw new Error(
      `PocketBase ${version} is too old for the gateway's hooks, which need ${OLDEST} or newer. ` +
        `Update it ("pocketbase update") and start it again.`,
    );
  }
  if (now > number(NEWEST.split("."))) {
    console.log(`gateway: PocketBase ${version} is newer than ${NEWEST}, the newest that the gateway's hooks were tried with`);
  }
}

function number([major, minor, patch]) {
  return (Number(major) * 1000 + Number(minor)) * 1000 + Number(patch);
}

function checkEnvironment() {
  require(`${__hooks}/gateway/secrets.js`).load();
  const { bases, masked } = require(`${__hooks}/gateway/address.js`);
  if (bases.length === 0) throw new Error('GATEWAY_URL names no gateway; it should look like "http://127.0.0.1:8000".');
  for (const url of bases) {
    if (/^https?:\/\/[^/]/.test(url)) continue;
    throw new Error(`GATEWAY_URL has "${masked(url)}"; it should look like "http://127.0.0.1:8000", or like several of these with commas between them.`);
  }
}

/** Run after bootstrap: the outbox, and the collections and fields that the config names. */
function checkSchema(app) {
  const schema = require(`${__hooks}/gateway/schema.js`);
  const outbox = require(`${__hooks}/gateway/outbox.js`);
  outbox.listen(app); // migrations may write records, and be the ones that make what the config names
  if (!serving()) {
    schema.bind(app);
    schema.told(app);
    return;
  }
  // The server is about to do this anyway; what a new migration makes must be there when we look.
  app.runAllMigrations();

  const { TABLE } = require(`${__hooks}/gateway/rows.js`);
  if (!app.hasTable(TABLE)) {
    refuse(new Error(`there is no table ${TABLE}; copy pb_migrations/*_gateway_outbox.js as well`));
  }
  try {
    require(`${__hooks}/gateway/schema_check.js`).check(app, config.get());
  } catch (err) {
    if (!goOnWithLastGood(err)) refuse(err);
  }
  schema.bind(app);
  outbox.listen(app);
  schema.told(app);
  tellOfNewConfig(app);
  const { relay, updates } = config.get();
  if (Object.keys(relay).length + Object.keys(updates).length === 0) {
    console.log("gateway: gateway.config.js relays nothing yet: name collections under `relay`, or channels under `updates`");
  }
}

/** Whoever is connected may owe that to the former config: another auth collection, guests, other guards. */
function tellOfNewConfig(app) {
  const { config: last } = lastGood() || {};
  if (JSON.stringify(last) === JSON.stringify(config.get())) return keepAsLastGood();
  // First the row, then the note that it is written.
  if (require(`${__hooks}/gateway/access.js`).isAnybodyThere(app)) require(`${__hooks}/gateway/outbox.js`).everything(app);
  keepAsLastGood();
}

// ---- a config that is broken while PocketBase runs

// When a file in pb_hooks changes, PocketBase restarts itself in place. A config that is broken at that moment must not
// end a server that was running well: the last good one stays in force. At any other start it is refused.

function keepAsLastGood() {
  const text = JSON.stringify({ process: thisProcess(), config: config.get() });
  try {
    $os.writeFile(`${$app.dataDir()}/${LAST_GOOD}`, toBytes(text), 0o600);
  } catch (err) {
    console.error(`gateway: ${LAST_GOOD} could not be written: ${err}`);
  }
}

function goOnWithLastGood(err) {
  const last = lastGood();
  if (!last || !last.process || last.process !== thisProcess()) return false;
  console.error(`gateway: ${err.message}`);
  console.error("gateway: the config before this change stays in force; mend gateway.config.js, or the next start will fail");
  config.set(last.config);
  return true;
}

function lastGood() {
  try {
    return JSON.parse(toString($os.readFile(`${$app.dataDir()}/${LAST_GOOD}`)));
  } catch {
    return null;
  }
}

/** Names the process through restarts in place: its number and when it began; empty where the system does not tell. */
function thisProcess() {
  try {
    const stat = toString($os.readFile("/proc/self/stat"));
    // The name, in brackets, may hold blanks.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return `${stat.split(" ")[0]} ${fields[19]}`;
  } catch {
    // no Linux
  }
  try {
    return toString($os.cmd("sh", "-c", "ps -o pid=,lstart= -p $PPID").output()).trim();
  } catch {
    return "";
  }
}

module.exports = { load, checkSchema };
