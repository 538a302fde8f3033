// The record of an event: what PocketBase itself would send of it to an anonymous reader.
//
// All subscribers of a channel get the same bytes, so the reader is nobody in particular: hidden fields, passwords and
// e-mail addresses that are not public are left out for the record's owner too, and onRecordEnrich hooks run without
// `auth`. PocketBase's own encoder writes the JSON, which keeps numbers as they were stored.

const config = require(`${__hooks}/gateway/config.js`).get();
const schema = require(`${__hooks}/gateway/schema.js`);
const { warn } = require(`${__hooks}/gateway/notice.js`);

/**
 * {json, truncated}: the record's state after a save that is done. `truncated`: the JSON has the id alone, since the
 * record is too large for an event or an onRecordEnrich hook failed.
 */
function record(app, record) {
  try {
    const copy = record.fresh(); // without what other hooks may have unhidden, added or expanded
    // They hold the plain text until the row is read again.
    for (const name of passwords(app, record)) copy.set(name, "");
    if ($app.onRecordEnrich().length() > 0) $apis.enrichRecord(anonymousRead(app), copy);
    const json = copy.marshalJSON();
    if (json.length <= config.outbox.maxEventBytes) return { json: toString(json), truncated: false };
  } catch (err) {
    warn(app, `export.${record.tableName()}`, "a record cannot be sent whole: subscribers get its id alone",
      "collection", record.tableName(), "record", record.id, "reason", String(err));
  }
  return { json: JSON.stringify({ id: record.id }), truncated: true };
}

/** Collection → names of its password fields; of the schema for which they were looked up. */
let known = { schema: null, passwords: new Map() };

function passwords(app, record) {
  const now = schema.current(app);
  if (known.schema !== now) known = { schema: now, passwords: new Map() };
  const collection = record.tableName();
  if (!known.passwords.has(collection)) {
    const fields = record.collection().fields.filter((field) => field.type() === "password");
    known.passwords.set(collection, fields.map((field) => field.name));
  }
  return known.passwords.get(collection);
}

/** The request that onRecordEnrich hooks see. */
function anonymousRead(app) {
  return { app, auth: null, request: { method: "GET", url: { path: "/api/realtime" }, header: {} } };
}

/**
 * The data of an event: {"action","collection","record"}, with "truncated":true behind it where it is. "reload" concerns
 * a whole collection instead of one record, by its name.
 */
function event(app, action, changed) {
  if (action === "reload") return `{"action":"reload","collection":"${changed}","record":{"id":""}}`;
  const { json, truncated } = record(app, changed);
  const end = truncated ? `,"truncated":true}` : "}"; // the gateway counts data that ends like this
  return `{"action":"${action}","collection":"${changed.tableName()}","record":${json}${end}`;
}

module.exports = { record, event };
