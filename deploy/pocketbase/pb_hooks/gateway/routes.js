// The routes for the gateway. Every request is signed; every answer is JSON.

const config = require(`${__hooks}/gateway/config.js`);
const { STATUS } = config;
const outbox = require(`${__hooks}/gateway/outbox.js`);
const rows = require(`${__hooks}/gateway/rows.js`);
const delivery = require(`${__hooks}/gateway/delivery.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const signature = require(`${__hooks}/gateway/signature.js`);
const updates = require(`${__hooks}/gateway/updates.js`);
const version = require(`${__hooks}/gateway/version.js`);
const { GUEST, accountOf, byKey, byToken, requestOf } = require(`${__hooks}/gateway/users.js`);

const MAX_ENTRIES = 500;
const MAX_EVENTS = 1000;
const MAX_ROWS = 10000;

function refuse(e, status, code, message) {
  return e.json(status, { error: { code, message } });
}

/** An invalid request; the message is sent to the caller. */
class BadRequest extends Error {}

/** Checks the signature and answers with the result of `respond(body)`. */
function answer(e, respond) {
  const body = toString(e.request.body);
  const problem = signature.problem(e.request, body);
  if (problem) return refuse(e, 401, problem.code, problem.message);
  try {
    // If another process has changed rules, an access change is written first, so that no answer by the new rules is
    // older than the access change.
    outbox.notice(e.app);
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
    throw new BadRequest(`"${name}" is missing, is not a list, or has an invalid entry.`);
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

/** id → record, for the existing records, in one query. */
function recordsById(app, collection, ids) {
  const found = new Map();
  for (const record of app.findRecordsByIds(collection, [...new Set(ids)])) {
    found.set(record.id, record);
  }
  return found;
}

/**
 * POST /api/gateway/keys: accounts for token verification. For each "COLLECTIONID/ID": the user's KEY (see users.js),
 * the signing key of the user's tokens, the ends of a ban and of a mute (Unix ms; 0: no ban or mute), and the KEYs of
 * the users whom the user blocks. "" means guests, who have no signing key. The answer is null for an unknown user and
 * for an account that the config does not admit.
 */
function keys(e) {
  return answer(e, (body) => {
    const names = list(parse(body).users, "users", (name) => typeof name === "string");
    const found = byToken(e.app, names);
    const { guests } = schema.current(e.app);
    const guest = guests ? { user: GUEST, bannedUntil: 0, mutedUntil: 0, blocked: [] } : null;
    const answers = names.map((name) =>
      name === GUEST ? guest : found.has(name) ? accountFor(found.get(name)) : null,
    );
    return e.json(200, { keys: answers });
  });
}

function accountFor({ record, account: { key, bannedUntil, mutedUntil, blocked } }) {
  return {
    user: key + record.id,
    key: record.tokenKey() + record.collection().authToken.secret,
    bannedUntil: milliseconds(record, bannedUntil),
    mutedUntil: milliseconds(record, mutedUntil),
    blocked: blocked ? record.getStringSlice(blocked).map((id) => key + id) : [],
  };
}

function milliseconds(record, field) {
  const date = field && record.getDateTime(field);
  return date && !date.isZero() ? date.time().unixMilli() : 0;
}

/** POST /api/gateway/authorize: access checks, whether the user with a KEY ("": a guest) may subscribe to a channel. */
function authorize(e) {
  const valid = (check) =>
    check !== null && typeof check === "object" && typeof check.user === "string" && typeof check.channel === "string";

  return answer(e, (body) => {
    const checks = list(parse(body).checks, "checks", valid);
    const users = byKey(
      e.app,
      checks.map((check) => check.user),
    );
    const infos = new Map();
    for (const [key, auth] of users) infos.set(key, requestOf(auth));

    const guards = guardedRecords(e.app, checks);
    const results = checks.map(({ user, channel }) => {
      const info = infos.get(user);
      if (updates.serves(e.app, channel)) return info ? "allowed" : "denied";
      const { namespace, id } = split(channel);
      const guard = guards.get(namespace);
      if (!guard) return "unknown";
      const auth = users.get(user);
      if (guard.own) return auth && auth.id === id && auth.collection().id === guard.own ? "allowed" : "denied";
      const record = guard.records.get(id);
      if (!info || !record) return "denied";
      return e.app.canAccessRecord(record, info, record.collection().viewRule) ? "allowed" : "denied";
    });
    return e.json(200, { results });
  });
}

/** "room:abc" → {namespace: "room", id: "abc"}; without a colon the namespace is empty and `id` undefined. */
function split(channel) {
  const [, namespace = "", id] = /^([^:]*):([\s\S]*)$/.exec(channel) || [];
  return { namespace, id };
}

/** namespace → {own} or {records: id in the channel's name → guarded record, for existing records in the checks}. */
function guardedRecords(app, checks) {
  const { channels } = schema.current(app);
  const asked = new Map();
  for (const { channel } of checks) {
    const { namespace, id } = split(channel);
    if (!Object.hasOwn(channels, namespace)) continue;
    if (!asked.has(namespace)) asked.set(namespace, []);
    asked.get(namespace).push(id);
  }
  const found = new Map();
  for (const [namespace, ids] of asked) {
    const { guards, own } = channels[namespace];
    if (!own && guards.length === 0) continue; // the guard was deleted, as /readyz reports
    if (own) found.set(namespace, { own });
    else
      found.set(namespace, {
        records: namespace === STATUS ? owners(app, guards, ids) : recordsById(app, guards[0].id, ids),
      });
  }
  return found;
}

/** KEY → record, for the users of these auth collections. */
function owners(app, guards, names) {
  const { users } = schema.current(app);
  const isGuarded = (key) => key !== GUEST && guards.some(({ id }) => id === (accountOf(users, key) || {}).id);
  return byKey(app, names.filter(isGuarded));
}

/** POST /api/gateway/visible: a page of the records in an updates channel that a user may view (see updates.js). */
function visible(e) {
  return answer(e, (body) => {
    const { channel, user, after, rows: limit } = parse(body);
    for (const [name, value] of Object.entries({ user, after })) {
      if (typeof value !== "string") throw new BadRequest(`"${name}" is not a string.`);
    }
    number(limit, "rows", 1, MAX_ROWS);
    if (!updates.serves(e.app, channel)) throw new BadRequest(`"${channel}" is not an updates channel.`);
    return e.json(
      200,
      updates.visible(e.app, channel, byKey(e.app, updates.isClass(user) ? [] : [user]), user, after, limit),
    );
  });
}

/** POST /api/gateway/view: whether users may view records, and the current state of the visible records. */
function view(e) {
  const valid = (check) =>
    check !== null && typeof check === "object" && typeof check.user === "string" && typeof check.record === "string";

  return answer(e, (body) => {
    const { channel, checks } = parse(body);
    list(checks, "checks", valid);
    if (!updates.serves(e.app, channel)) throw new BadRequest(`"${channel}" is not an updates channel.`);
    const users = checks.map(({ user }) => user).filter((user) => !updates.isClass(user));
    return e.json(200, updates.view(e.app, channel, byKey(e.app, users), checks));
  });
}

/** GET /api/gateway/events?after=N&limit=M: outbox rows after number N, at most M. */
function events(e) {
  return answer(e, () => {
    const query = e.request.url.query();
    const seq = number(wholeNumber(query.get("after")), "after", 0, Number.MAX_SAFE_INTEGER);
    const limit = number(wholeNumber(query.get("limit")), "limit", 1, MAX_EVENTS);
    // `last` is read first, so that a row committed between the two reads is in the events.
    const last = rows.last(e.app);
    const page = rows.after(e.app, seq, limit);
    delivery.gatewayHas(e.app, seq);
    const { problems } = schema.current(e.app);
    const report = JSON.stringify(delivery.report(e.app));
    const about = `"problems":${JSON.stringify([...config.refusal(), ...problems])},"delivery":${report},"version":"${version}"`;
    const json = `{"boot":"${rows.boot(e.app)}","events":[${page.events}],"last":${Math.max(last, page.last)},${about}}`;
    return e.blob(200, "application/json", toBytes(json));
  });
}

function wholeNumber(text) {
  return /^\d+$/.test(text) ? Number(text) : NaN;
}

/**
 * POST /api/gateway/confirm: confirms all rows up to seq, so that old rows can be deleted. Answers {trimmed, more};
 * with `more`, the gateway calls again at the next reading of the outbox.
 */
function confirm(e) {
  return answer(e, (body) => {
    const seq = number(parse(body).seq, "seq", 0, Number.MAX_SAFE_INTEGER);
    const trimmed = rows.trim(e.app, seq, Date.now() - config.get().outbox.keepSeconds * 1000);
    delivery.gatewayHas(e.app, seq);
    return e.json(200, trimmed);
  });
}

/** POST /api/gateway/probe: calls each gateway and answers {url, error}; `error` is "" if all calls succeeded. */
function probe(e) {
  return answer(e, () => e.json(200, delivery.probe(e.app)));
}

module.exports = { keys, authorize, visible, view, events, confirm, probe };
