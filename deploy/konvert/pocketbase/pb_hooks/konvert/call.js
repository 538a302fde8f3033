// Frame of the chat's routes: caller, refusals with codes, a transaction per write.

/** A refused call, answered as {status, code, message}; the codes are those of the adapter's errors.ts. */
class Refusal extends Error {
  constructor(status, code, message, more = {}) {
    super(message);
    Object.assign(this, { status, code, more });
  }
}

const refuse = {
  unauthorized: (message) => fail(401, "unauthorized", message),
  forbidden: (message, more) => fail(403, "forbidden", message, more),
  missing: (message) => fail(404, "not_found", message),
  invalid: (message) => fail(400, "invalid", message),
  conflict: (message) => fail(409, "conflict", message),
  unsupported: (message) => fail(501, "unsupported", message),
};

function fail(...how) {
  throw new Refusal(...how);
}

/** PocketBase's form of the present moment; dates compare as texts. */
function now() {
  return new Date().toISOString().replace("T", " ");
}

/** The logged-in user's record. Refuses guests, users of other collections and banned users. */
function caller(e) {
  if (!e.auth || e.auth.collection().name !== "users") refuse.unauthorized("Log in first.");
  const until = e.auth.getString("banned_until");
  if (until > now()) fail(403, "banned", "This account is banned.", { until });
  return e.auth;
}

/** The caller, who may also write: refuses muted users. */
function writer(e) {
  const user = caller(e);
  const until = user.getString("muted_until");
  if (until > now()) fail(403, "muted", "This account is muted.", { until });
  return user;
}

/** Answers a request with the result of `work`, sent as JSON unless `send` says how; a refusal with its status and code. */
function answer(e, work, send = (result) => e.json(200, result ?? {})) {
  try {
    return send(work());
  } catch (err) {
    if (!(err instanceof Refusal)) throw err;
    return e.json(err.status, { status: err.status, code: err.code, message: err.message, data: {}, ...err.more });
  }
}

/** Runs `work(tx)` in a transaction and returns the result. Exceptions and refusals roll back. */
function transaction(app, work) {
  let result, problem;
  try {
    app.runInTransaction((tx) => {
      try {
        result = work(tx);
      } catch (err) {
        problem = err;
        throw err;
      }
    });
  } catch (err) {
    throw problem ?? err; // PocketBase wraps the exception, which would lose its class
  }
  return result;
}

/** A record under its viewRule; refuses missing and invisible records alike. */
function visible(app, e, collection, id) {
  const record = find(app, collection, "id = {:id}", { id });
  const rule = record && record.collection().viewRule;
  if (!record || !app.canAccessRecord(record, e.requestInfo(), rule))
    refuse.missing(`No such record in ${collection}.`);
  return record;
}

/** The first record that fits the filter, else null. */
function find(app, collection, filter, values) {
  return app.findRecordsByFilter(collection, filter, "", 1, 0, values)[0] ?? null;
}

/** Saves a new record. */
function create(app, collection, values) {
  const record = new Record(app.findCachedCollectionByNameOrId(collection), values);
  app.save(record);
  return record;
}

/** The JSON value that a query returns in its column `value`. */
function query(app, sql, values) {
  return JSON.parse(queryText(app, sql, values));
}

/** The text that a query returns in its column `value`. */
function queryText(app, sql, values) {
  const row = new DynamicModel({ value: "" });
  app.db().newQuery(sql).bind(values).one(row);
  return row.value;
}

/** True for writes of an import, which the hooks leave unchanged. */
function isImport(e) {
  return Boolean(e.context && e.context.value("gateway.import"));
}

/** True for writes of an import, and of migrations that run before the chat's own migration. */
function isPlain(e) {
  return isImport(e) || !isMigrated(e.app);
}

function isMigrated(app) {
  try {
    return Boolean(app.findCachedCollectionByNameOrId("notifications"));
  } catch {
    return false;
  }
}

function body(e) {
  return e.requestInfo().body ?? {};
}

module.exports = {
  refuse,
  caller,
  writer,
  answer,
  transaction,
  visible,
  find,
  create,
  query,
  queryText,
  isImport,
  isPlain,
  isMigrated,
  body,
  now,
};
