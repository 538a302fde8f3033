// What the gateway asks PocketBase. Every request is signed; every answer is JSON.

const config = require(`${__hooks}/gateway.config.js`);
const outbox = require(`${__hooks}/gateway/outbox.js`);
const delivery = require(`${__hooks}/gateway/delivery.js`);
const signature = require(`${__hooks}/gateway/signature.js`);
const updates = require(`${__hooks}/gateway/updates.js`);

/** The namespaces of personal channels. */
const own = new Set(Object.keys(config.channels).filter((namespace) => config.channels[namespace].own));

const MAX_ENTRIES = 500;
const MAX_EVENTS = 1000;

function refuse(e, status, code, message) {
  return e.json(status, { error: { code, message } });
}

/** Something in the request that the gateway must mend; its message says what. */
class BadRequest extends Error {}

/** Checks the signature and answers with what `respond(body)` returns. */
function answer(e, respond) {
  const body = toString(e.request.body);
  const problem = signature.problem(e.request, body);
  if (problem) return refuse(e, 401, problem.code, problem.message);
  try {
    return respond(body);
  } catch (err) {
    if (err instanceof BadRequest) return refuse(e, 400, "bad_request", err.message);
    throw err;
  }
}

function parse(body) {
  let value;
  try {
    value = JSON.parse(body);
  } catch {
    throw new BadRequest("The body is not JSON.");
  }
  if (value === null || typeof value !== "object") throw new BadRequest("The body is not a JSON object.");
  return value;
}

function list(value, name, valid) {
  if (!Array.isArray(value) || !value.every(valid)) {
    throw new BadRequest(`"${name}" is missing or has an entry of another form.`);
  }
  if (value.length > MAX_ENTRIES) throw new BadRequest(`"${name}" has more than ${MAX_ENTRIES} entries.`);
  return value;
}

function number(value, name, min, max) {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new BadRequest(`"${name}" is not a whole number from ${min} to ${max}.`);
  }
  return value;
}

/** id → record, for those that exist, in one query. */
function recordsById(app, collection, ids) {
  const found = new Map();
  for (const record of app.findRecordsByIds(collection, [...new Set(ids)])) {
    found.set(record.id, record);
  }
  return found;
}

/**
 * POST /api/gateway/keys: of each user, what his tokens are signed with, until when he is banned and muted
 * (unix ms; 0: he is not), and whom he blocks.
 */
function keys(e) {
  return answer(e, (body) => {
    const ids = list(parse(body).users, "users", (id) => typeof id === "string");
    const { bannedUntil, mutedUntil, blocked } = config.users;
    const collection = e.app.findCachedCollectionByNameOrId(config.users.collection);
    const users = recordsById(e.app, collection, ids);
    const account = (user) => ({
      key: user.tokenKey() + collection.authToken.secret,
      bannedUntil: milliseconds(user, bannedUntil),
      mutedUntil: milliseconds(user, mutedUntil),
      blocked: blocked ? user.getStringSlice(blocked) : [],
    });
    return e.json(200, {
      keys: ids.map((id) => (users.has(id) ? account(users.get(id)) : null)),
      collection: collection.id,
    });
  });
}

function milliseconds(record, field) {
  const date = field && record.getDateTime(field);
  return date && !date.isZero() ? date.time().unixMilli() : 0;
}

/** POST /api/gateway/authorize: may this user subscribe to this channel. */
function authorize(e) {
  const valid = (check) =>
    check !== null && typeof check === "object" && typeof check.user === "string" && typeof check.channel === "string";

  return answer(e, (body) => {
    const checks = list(parse(body).checks, "checks", valid);
    const users = recordsById(e.app, config.users.collection, checks.map((check) => check.user));
    const infos = new Map();
    for (const [id, auth] of users) infos.set(id, new RequestInfo({ auth, method: "GET" }));

    const guards = guardedRecords(e.app, checks);
    const results = checks.map(({ user, channel }) => {
      const { namespace, id } = split(channel);
      if (own.has(namespace)) return id === user && infos.has(user) ? "allowed" : "denied";
      if (updates.serves(channel)) return infos.has(user) ? "allowed" : "denied";
      const guard = guards.get(namespace);
      if (!guard) return "unknown";
      const info = infos.get(user);
      const record = guard.records.get(id);
      if (!info || !record) return "denied";
      return e.app.canAccessRecord(record, info, guard.rule) ? "allowed" : "denied";
    });
    return e.json(200, { results });
  });
}

/** "room:abc" → {namespace: "room", id: "abc"}; nothing where there is no colon. */
function split(channel) {
  const [, namespace, id] = /^([^:]*):([^]*)$/.exec(channel) || [];
  return { namespace, id };
}

/** namespace → its guard's rule, and those of the records asked for that exist. */
function guardedRecords(app, checks) {
  const guards = new Map();
  for (const namespace in config.channels) {
    if (own.has(namespace)) continue;
    const collection = app.findCachedCollectionByNameOrId(config.channels[namespace].guard);
    const ids = checks.map((check) => split(check.channel)).filter((c) => c.namespace === namespace);
    guards.set(namespace, {
      rule: collection.viewRule,
      records: recordsById(app, collection, ids.map((c) => c.id)),
    });
  }
  return guards;
}

/** POST /api/gateway/visible: which records of an updates channel these users may view (see updates.js). */
function visible(e) {
  return answer(e, (body) => {
    const { channel, users } = parse(body);
    const ids = list(users, "users", (id) => typeof id === "string");
    if (!updates.serves(channel)) throw new BadRequest(`"${channel}" is not a channel of updates.`);
    return e.json(200, updates.visible(e.app, channel, recordsById(e.app, config.users.collection, ids), ids));
  });
}

/** POST /api/gateway/view: which of these users may view which of these records, and what such a record is now. */
function view(e) {
  const valid = (check) =>
    check !== null && typeof check === "object" && typeof check.user === "string" && typeof check.record === "string";

  return answer(e, (body) => {
    const { channel, checks } = parse(body);
    list(checks, "checks", valid);
    if (!updates.serves(channel)) throw new BadRequest(`"${channel}" is not a channel of updates.`);
    const users = checks.map(({ user }) => user.replace(/^~/, ""));
    return e.json(200, updates.view(e.app, channel, recordsById(e.app, config.users.collection, users), checks));
  });
}

/** GET /api/gateway/events?after=N&limit=M: the outbox. */
function events(e) {
  return answer(e, () => {
    const query = e.request.url.query();
    const seq = number(wholeNumber(query.get("after")), "after", 0, Number.MAX_SAFE_INTEGER);
    const limit = number(wholeNumber(query.get("limit")), "limit", 1, MAX_EVENTS);
    // `last` is read first: whatever is committed between the two is then in the events.
    const last = outbox.last(e.app);
    const rows = outbox.after(e.app, seq, limit);
    delivery.gatewayHas(e.app, seq);
    const json = `{"boot":"${outbox.boot(e.app)}","events":[${rows.events}],"last":${Math.max(last, rows.last)}}`;
    return e.blob(200, "application/json", toBytes(json));
  });
}

function wholeNumber(text) {
  return /^\d+$/.test(text) ? Number(text) : NaN;
}

/** POST /api/gateway/confirm: the gateway has everything up to seq. */
function confirm(e) {
  return answer(e, (body) => {
    const seq = number(parse(body).seq, "seq", 0, Number.MAX_SAFE_INTEGER);
    const trimmed = outbox.trim(e.app, seq, Date.now() - config.outbox.keepSeconds * 1000);
    delivery.gatewayHas(e.app, seq);
    return e.json(200, { trimmed });
  });
}

module.exports = { keys, authorize, visible, view, events, confirm };
