// The checks before the server listens: PocketBase's version, the environment, the config and the schema. If a check
// fails, PocketBase prints the reason and does not start.

const config = require(`${__hooks}/gateway/config.js`);

/** The oldest PocketBase version that passes this project's tests, and the newest tested version. */
const OLDEST = "0.34.2";
const NEWEST = "0.40.6";

/** File in PocketBase's data folder: the last valid config, and the process that used it. */
const LAST_GOOD = "gateway.config.last.json";

// The other commands (superuser, migrate) load the hooks too, since they may write records. They need no gateway, and
// therefore neither the environment nor a supported version.
function serving() {
  return $os.args.includes("serve");
}

/** Called while the hooks load: checks version and environment, and reads the config. */
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
    const last = serving() ? lastOfThisProcess() : lastGood();
    if (!last && !serving()) throw err; // nothing was ever relayed, so the command needs no hooks
    if (!last) refuse(err);
    goOnWith(last, err);
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
    if (!isThere(`${__hooks}/gateway.config.js`)) {
      throw new Error("gateway.config.js is missing: copy it into pb_hooks as well");
    }
    const reason = String(err).replace(/^GoError: /, "");
    // The engine reports a file that it cannot parse as a GoError. Anything else was thrown while the file ran.
    if (/^GoError: SyntaxError/.test(String(err))) {
      throw new Error(`gateway.config.js is not valid JavaScript: ${reason}`);
    }
    const [, line] = /gateway\.config\.js:(\d+)/.exec((err && err.stack) || "") || [];
    throw new Error(`gateway.config.js threw an error${line ? ` in line ${line}` : ""}: ${reason}`);
  }
}

/** Ends the process. With an exception, PocketBase would start without the gateway's hooks. */
function refuse(err) {
  console.error(`gateway: ${err.message}`);
  $os.exit(1);
}

function checkVersion() {
  const { version } = $app.rootCmd || {};
  const parts = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version || "");
  if (!parts) {
    console.log(
      `gateway: PocketBase's version is unknown; the gateway's hooks need ${OLDEST} or newer and are tested up to ${NEWEST}`,
    );
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
    console.log(
      `gateway: PocketBase ${version} is newer than ${NEWEST}, the newest version that the gateway's hooks are tested with`,
    );
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
    throw new Error(
      `GATEWAY_URL has "${masked(url)}"; it should look like "http://127.0.0.1:8000", or be a list of such URLs with commas in between.`,
    );
  }
}

/** Called after PocketBase's bootstrap: checks the outbox table, and the collections and fields in the config. */
function checkSchema(app) {
  const schema = require(`${__hooks}/gateway/schema.js`);
  if (!serving()) return adoptForCommand(app, schema);
  adopt(app, schema);
  schema.told(app);
  tellOfNewConfig(app);
  const { relay, updates } = config.get();
  if (Object.keys(relay).length + Object.keys(updates).length === 0) {
    console.log(
      "gateway: gateway.config.js relays nothing yet: name collections under `relay`, or channels under `updates`",
    );
  }
}

/**
 * Runs the new migrations and takes the file's config into force, if the config fits the schema. If it does not, the
 * last config stays in force after a restart in place; any other start fails.
 */
function adopt(app, schema) {
  const { check } = require(`${__hooks}/gateway/schema_check.js`);
  const outbox = require(`${__hooks}/gateway/outbox.js`);
  const last = lastOfThisProcess();
  const isRefused = config.refusal().length > 0; // by load()
  const given = config.get();
  // Migrations may write records, and may also create the collections of a new config. Their writes need a config in
  // force: the last valid config, unless the new config fits already.
  if (last && (isRefused || problemOf(() => check(app, given)))) use(app, schema, last);
  outbox.listen(app);
  // The server would run the migrations later; the check needs the collections of new migrations now.
  app.runAllMigrations();

  const { TABLE } = require(`${__hooks}/gateway/rows.js`);
  if (!app.hasTable(TABLE))
    refuse(new Error(`there is no table ${TABLE}; copy pb_migrations/*_gateway_outbox.js as well`));

  const problem = isRefused ? null : problemOf(() => check(app, given));
  if (problem && !last) refuse(problem);
  if (problem) goOnWith(last, problem);
  if (isRefused || problem) {
    use(app, schema, last);
  } else {
    config.set(given);
    schema.bind(app);
    schema.forget();
  }
  outbox.listen(app);
}

/**
 * Chooses the config of another command, which may write records: the file's config if it fits the schema, else the
 * config of the last start. With `migrate up`, a new config fits only after the migrations. Before PocketBase's first
 * start nobody can have subscribed, so a config that does not fit relays nothing.
 */
function adoptForCommand(app, schema) {
  const { check } = require(`${__hooks}/gateway/schema_check.js`);
  const isRefused = config.refusal().length > 0; // by load()
  const problem = isRefused ? null : problemOf(() => check(app, config.get()));
  const last = isRefused || problem ? lastGood() : null;
  if (last) {
    if (problem)
      console.error(`gateway: ${problem.message}\ngateway: this command uses the config of PocketBase's last start`);
    use(app, schema, last);
  } else if (problem) {
    config.set({ ...config.get(), channels: {}, updates: {}, relay: {} });
  } else {
    schema.bind(app);
    schema.forget();
  }
  require(`${__hooks}/gateway/outbox.js`).listen(app);
  schema.told(app);
}

/** Takes the last valid config into force, with the ids of its names: a collection may have been renamed since. */
function use(app, schema, last) {
  config.set(last.config);
  if (last.bound) schema.bindAs(last.bound);
  else schema.bind(app);
  schema.forget();
}

function problemOf(check) {
  try {
    check();
    return null;
  } catch (err) {
    return err;
  }
}

/**
 * After a change of the config, requests a check of all access: connected users may have their access from the former
 * config, by another auth collection, as guests or by other guards.
 */
function tellOfNewConfig(app) {
  const { config: last } = lastGood() || {};
  if (JSON.stringify(last) === JSON.stringify(config.get())) return keepAsLastGood();
  // First the outbox row, then the file: after a crash in between, the next start writes the row again.
  if (require(`${__hooks}/gateway/access.js`).isAnybodyThere(app))
    require(`${__hooks}/gateway/outbox.js`).everything(app);
  keepAsLastGood();
}

// ---- a config that is broken while PocketBase runs

// When a file in pb_hooks changes, PocketBase restarts itself in place: the process replaces its own program, and all
// JavaScript engines are new. A broken config at that moment must not end a healthy server: the last valid config stays
// in force, with the ids of its collections and fields. At any other start a broken config is refused.

function keepAsLastGood() {
  const text = JSON.stringify({
    process: thisProcess(),
    config: config.get(),
    bound: require(`${__hooks}/gateway/schema.js`).bound(),
  });
  try {
    $os.writeFile(`${$app.dataDir()}/${LAST_GOOD}`, toBytes(text), 0o600);
  } catch (err) {
    console.error(`gateway: ${LAST_GOOD} could not be written: ${err}`);
  }
}

/** Reports the error in the file, and takes the last valid config into force. */
function goOnWith(last, err) {
  console.error(`gateway: ${err.message}`);
  console.error(
    "gateway: the config before this change stays in force; correct gateway.config.js, or the next start will fail",
  );
  config.refused(err);
  config.set(last.config);
}

/** The last valid config if this process has used it, so that PocketBase has restarted in place; else null. */
function lastOfThisProcess() {
  const last = lastGood();
  return last && last.process && last.process === thisProcess() ? last : null;
}

function lastGood() {
  try {
    return JSON.parse(toString($os.readFile(`${$app.dataDir()}/${LAST_GOOD}`)));
  } catch {
    return null;
  }
}

/** A name for this process that restarts in place do not change: process id and start time; "" if unknown. */
function thisProcess() {
  try {
    const stat = toString($os.readFile("/proc/self/stat"));
    // The process name, in brackets, may contain blanks.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return `${stat.split(" ")[0]} ${fields[19]}`;
  } catch {
    // not Linux
  }
  try {
    return toString($os.cmd("sh", "-c", "ps -o pid=,lstart= -p $PPID").output()).trim();
  } catch {
    return "";
  }
}

module.exports = { load, checkSchema };
