// The record in an event: the same JSON that PocketBase would send to an anonymous reader.
//
// All subscribers of a channel get the same bytes. Therefore hidden fields, passwords and private e-mail addresses are
// left out, for the record's owner too, and onRecordEnrich hooks run without `auth`. PocketBase's own encoder writes
// the JSON, which keeps numbers as they were stored.

const config = require(`${__hooks}/gateway/config.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { isTooDeep } = require(`${__hooks}/gateway/nesting.js`);
const { warn } = require(`${__hooks}/gateway/notice.js`);

/**
 * {json, truncated}: the record's state after a finished save. `truncated`: the JSON has the id alone, since the record
 * is too large or nested too deep for an event, or an onRecordEnrich hook failed.
 */
function exported(app, record, collection = record.tableName()) {
  try {
    const copy = record.fresh(); // without what other hooks may have unhidden, added or expanded
    // Password fields hold the plain text until the row is read again.
    const { passwords, enriched } = knowledge(app, collection, record);
    for (let i = 0; i < passwords.length; i++) copy.set(passwords[i], "");
    if (enriched) $apis.enrichRecord(anonymousRead(app), copy);
    const json = textOf(app, copy, collection);
    if (json !== null) return { json, truncated: false };
  } catch (err) {
    const message = "a record cannot be sent whole; subscribers receive its id alone and have to fetch it";
    warn(app, `export.${collection}`, message, { collection, record: record.id, reason: String(err) });
  }
  return { json: JSON.stringify({ id: record.id }), truncated: true };
}

/** The record's JSON; null if it is too large or nested too deep for an event. */
function textOf(app, record, collection = record.tableName()) {
  const json = toString(record.marshalJSON());
  return isSmall(json) && !(knowledge(app, collection, record).nested && isTooDeep(json)) ? json : null;
}

/** Whether a text has at most maxEventBytes in UTF-8. One UTF-16 unit takes at most three bytes. */
function isSmall(text) {
  const { maxEventBytes } = config.get().outbox;
  return text.length * 3 <= maxEventBytes || (text.length <= maxEventBytes && toBytes(text).length <= maxEventBytes);
}

/**
 * Collection → {passwords: names of password fields, enriched: whether onRecordEnrich hooks exist, nested: whether a
 * record's JSON may be deep}, for one version of the schema.
 */
let known = { schema: null, collections: new Map() };

function knowledge(app, collection, record) {
  const now = schema.latest(app);
  if (known.schema !== now) known = { schema: now, collections: new Map() };
  let found = known.collections.get(collection);
  if (!found) {
    const { fields } = record.collection();
    const passwords = fields.filter((field) => field.type() === "password").map((field) => field.name);
    const enriched = $app.onRecordEnrich().length() > 0;
    found = { passwords, enriched, nested: enriched || fields.some((field) => field.type() === "json") };
    known.collections.set(collection, found);
  }
  return found;
}

/** The request event for onRecordEnrich hooks. */
function anonymousRead(app) {
  return { app, auth: null, request: { method: "GET", url: { path: "/api/realtime" }, header: {} } };
}

/**
 * The data of an event: {"action","collection","record"}, followed by "truncated":true for a truncated record. For the
 * action "reload", `changed` is the name of a collection instead of a record.
 */
function event(app, action, changed) {
  if (action === "reload") return `{"action":"reload","collection":"${changed}","record":{"id":""}}`;
  const collection = changed.tableName();
  const { json, truncated } = exported(app, changed, collection);
  const end = truncated ? `,"truncated":true}` : "}"; // the gateway counts truncated events by this ending
  return `{"action":"${action}","collection":"${collection}","record":${json}${end}`;
}

module.exports = { event, textOf };
