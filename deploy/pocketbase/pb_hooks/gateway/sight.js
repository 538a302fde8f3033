// The records of a guard that a user may view, read from PocketBase in sets.
//
// A rule that uses nothing of the request but plain fields of the account is applied as a filter. For other rules
// PocketBase's expand decides: a record in memory points to the records in question and is expanded for the user, and
// expand applies the viewRule. Rules about @request.context, which has another value in an expand, are checked per
// record.

const { requestOf } = require(`${__hooks}/gateway/users.js`);
const { filtersOfUser } = require(`${__hooks}/gateway/parents.js`);
const { withoutComments } = require(`${__hooks}/gateway/rule.js`);

/** Maximum records per expand. An onRecordEnrich hook in JavaScript takes an engine for every record of an expand. */
const EXPANDED = 1000;
const EXPANDED_WITH_HOOKS = 20;
/** Maximum IDs per filter; PocketBase allows 200 conditions. */
const NAMED = 50;
/** Prefix of the parameters beside the rule's parameters. */
const PAGE = "page";

/** The rules joined with &&; null where a rule is locked. */
function combined(rules) {
  if (rules.includes(null)) return null;
  const texts = [...new Set(rules.map((rule) => withoutComments(rule).trim()).filter(Boolean))];
  return texts.length > 1 ? texts.map((text) => `(${text})`).join(" && ") : texts[0] || "";
}

/** The guard's rule for this user: superusers may view everything. */
function ruleFor(guard, user) {
  return user && user.isSuperuser() ? "" : guard.rule;
}

/** Records with a match for the filter {text, values} and the condition; `more` are the condition's parameters. */
function filtered(app, guard, filter, condition, more, limit = 0) {
  const text = [filter.text, condition]
    .filter(Boolean)
    .map((part) => `(${part})`)
    .join(" && ");
  return app.findRecordsByFilter(guard.collection, text, limit ? "id" : "", limit, 0, { ...filter.values, ...more });
}

/** IDs of the range's records with a match for the filter. */
function inRange(app, guard, filter, { after, last }) {
  const condition = `id > {:${PAGE}After} && id <= {:${PAGE}Last}`;
  const more = { [`${PAGE}After`]: after, [`${PAGE}Last`]: last };
  return filtered(app, guard, filter, condition, more).map((record) => record.id);
}

/** The first `limit` IDs after `after` with a match for the filter and the condition. */
function firstAfter(app, guard, filter, condition, more, after, limit) {
  const all = `(${condition}) && id > {:${PAGE}After}`;
  return filtered(app, guard, filter, all, { ...more, [`${PAGE}After`]: after }, limit).map((record) => record.id);
}

/** The records of these IDs with a match for the filter. */
function withIds(app, guard, filter, ids) {
  const found = [];
  for (let i = 0; i < ids.length; i += NAMED) {
    const some = ids.slice(i, i + NAMED);
    const more = {};
    some.forEach((id, n) => (more[`${PAGE}${n}`] = id));
    const condition = some.map((_, n) => `id = {:${PAGE}${n}}`).join(" || ");
    found.push(...filtered(app, guard, filter, condition, more));
  }
  return found;
}

/** The records of these IDs with a match for any of the filters. */
function withIdsOfAny(app, guard, filters, ids) {
  const found = new Map();
  for (const filter of filters) {
    const open = found.size > 0 ? ids.filter((id) => !found.has(id)) : ids;
    for (const record of withIds(app, guard, filter, open)) found.set(record.id, record);
  }
  return [...found.values()];
}

/** The range of the next `rows` records after an ID: {after, last, next: true if more may follow}; null: no records. */
function rangeAfter(app, { collection }, after, rows) {
  const found = new DynamicModel({ last: "", count: 0 });
  app
    .db()
    .newQuery(
      `SELECT coalesce(max(id), '') last, count(*) count
       FROM (SELECT id FROM {{${collection.name}}} WHERE id > {:after} ORDER BY id LIMIT {:rows})`,
    )
    .bind({ after, rows })
    .one(found);
  return found.count > 0 ? { after, last: found.last, next: found.count === rows } : null;
}

/** IDs of all records in a range. */
function idsOf(app, { collection }, { after, last }) {
  return idsWhere(app, collection, "id > {:after} AND id <= {:last}", { after, last });
}

/** The IDs with an existing record. */
function existing(app, { collection }, ids) {
  const parameters = { ids: JSON.stringify(ids) };
  return new Set(idsWhere(app, collection, "id IN (SELECT value FROM json_each({:ids}))", parameters));
}

function idsWhere(app, collection, condition, parameters) {
  const found = new DynamicModel({ ids: "" });
  app
    .db()
    .newQuery(`SELECT coalesce(json_group_array(id), '[]') ids FROM {{${collection.name}}} WHERE ${condition}`)
    .bind(parameters)
    .one(found);
  return JSON.parse(found.ids);
}

/** IDs of the range's records that the user (null: a guest) may view. */
function visibleIn(app, guard, user, range) {
  const rule = ruleFor(guard, user);
  if (rule === null) return [];
  const filters = filtersOfUser(app, guard, rule, user);
  if (filters) return [...new Set(filters.flatMap((filter) => inRange(app, guard, filter, range)))];
  return visibleOf(app, guard, user, idsOf(app, guard, range)).map((record) => record.id);
}

/** The records of these IDs that the user (null: a guest) may view. */
function visibleOf(app, guard, user, ids) {
  const rule = ruleFor(guard, user);
  if (rule === null || ids.length === 0) return [];
  const filters = filtersOfUser(app, guard, rule, user);
  if (filters) return withIdsOfAny(app, guard, filters, ids);
  return guard.looksAtContext ? oneByOne(app, guard, user, ids) : expanded(app, guard, user, ids);
}

function oneByOne(app, guard, user, ids) {
  const info = requestOf(user);
  const mayView = (record) => app.canAccessRecord(record, info, guard.rule);
  return app.findRecordsByIds(guard.collection, ids).filter(mayView);
}

function expanded(app, guard, user, ids) {
  const { collection } = guard;
  const items = { type: "relation", name: "items", collectionId: collection.id, maxSelect: 2147483647 };
  const pointing = new Collection({ type: "base", name: "gateway_pointing", fields: [items] });
  const found = [];
  const step = hasEnrichHooks(app) ? EXPANDED_WITH_HOOKS : EXPANDED;
  for (let i = 0; i < ids.length; i += step) {
    const record = new Record(pointing, { items: ids.slice(i, i + step) });
    $apis.enrichRecord(eventOf(app, user), record, "items");
    found.push(...record.expandedAll("items"));
  }
  // The expand has applied the viewRule.
  if (guard.rule === withoutComments(collection.viewRule).trim()) return found;
  const info = requestOf(user);
  return found.filter((record) => app.canAccessRecord(record, info, collection.listRule));
}

/** A request event of this user. */
function eventOf(app, user) {
  return { app, auth: user, request: { method: "GET", url: { path: "/api/realtime" }, header: {} } };
}

function hasEnrichHooks(app) {
  return app.onRecordEnrich().length() > 0;
}

/** True where the fields of a record depend on the reader. */
function isPerReader(app, { collection }) {
  return collection.isAuth() || hasEnrichHooks(app);
}

/** The record's fields for this reader; superusers get the fields of an anonymous reader, as in all events. */
function asReader(app, user, record) {
  const fresh = record.fresh();
  $apis.enrichRecord(eventOf(app, user && user.isSuperuser() ? null : user), fresh);
  return fresh;
}

module.exports = {
  ...{ combined, inRange, firstAfter, withIds, rangeAfter, existing },
  ...{ visibleIn, visibleOf, isPerReader, asReader },
};
