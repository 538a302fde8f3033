// Which records of a guard a user may view, asked of PocketBase for many records at once.
//
// Where the rule asks nothing of the request but plain fields of the account, it is a filter itself. For all other
// rules PocketBase's own expand answers: a record in memory points to the records in question and is expanded as the
// user, which applies the viewRule. Both look at the same rows in the database as a list does.

const { filterOfUser } = require(`${__hooks}/gateway/sharing.js`);
const { withoutComments } = require(`${__hooks}/gateway/rule.js`);

/** Records that are expanded at once. With hooks in JavaScript each of them takes an engine of its own. */
const EXPANDED = 1000;
const EXPANDED_WITH_HOOKS = 20;
/** IDs in one filter, which may have 200 conditions. */
const NAMED = 50;
/** Stands before the names of parameters that are not the rule's. */
const PAGE = "page";

/** One text for several rules that all have to hold; null where one of them lets nobody in. */
function combined(rules) {
  if (rules.includes(null)) return null;
  const texts = [...new Set(rules.map((rule) => withoutComments(rule).trim()).filter(Boolean))];
  return texts.length > 1 ? texts.map((text) => `(${text})`).join(" && ") : texts[0] || "";
}

/** The rule of the guard for this user: superusers may view everything. */
function ruleFor(guard, user) {
  return user && user.isSuperuser() ? "" : guard.rule;
}

/** Records that the filter {text, values}, and the condition with its `more` parameters, hold for. */
function filtered(app, guard, filter, condition, more, limit = 0) {
  const text = [filter.text, condition].filter(Boolean).map((part) => `(${part})`).join(" && ");
  return app.findRecordsByFilter(guard.collection, text, limit ? "id" : "", limit, 0, { ...filter.values, ...more });
}

/** The IDs of the records of this range that the filter holds for. */
function inRange(app, guard, filter, { after, last }) {
  const condition = `id > {:${PAGE}After} && id <= {:${PAGE}Last}`;
  const more = { [`${PAGE}After`]: after, [`${PAGE}Last`]: last };
  return filtered(app, guard, filter, condition, more).map((record) => record.id);
}

/** The first `limit` IDs after this one of the records that the filter and the condition hold for. */
function firstAfter(app, guard, filter, condition, more, after, limit) {
  const all = `(${condition}) && id > {:${PAGE}After}`;
  return filtered(app, guard, filter, all, { ...more, [`${PAGE}After`]: after }, limit).map((record) => record.id);
}

/** The records of these IDs that the filter holds for. */
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

/** The range of the next `rows` records after this ID, {after, last, next: whether there may be more}; null: none. */
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

/** The IDs of all records in a range. */
function idsOf(app, { collection }, { after, last }) {
  return idsWhere(app, collection, "id > {:after} AND id <= {:last}", { after, last });
}

/** Those of these IDs that there are records of. */
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

/** The IDs of the records of this range that the user (null: a guest) may view. */
function visibleIn(app, guard, user, range) {
  const rule = ruleFor(guard, user);
  if (rule === null) return [];
  const filter = filterOfUser(rule, user);
  if (filter) return inRange(app, guard, filter, range);
  return visibleOf(app, guard, user, idsOf(app, guard, range)).map((record) => record.id);
}

/** The records of these IDs that the user (null: a guest) may view. */
function visibleOf(app, guard, user, ids) {
  const rule = ruleFor(guard, user);
  if (rule === null || ids.length === 0) return [];
  const filter = filterOfUser(rule, user);
  if (filter) return withIds(app, guard, filter, ids);
  return guard.looksAtContext ? oneByOne(app, guard, user, ids) : expanded(app, guard, user, ids);
}

function oneByOne(app, guard, user, ids) {
  const info = new RequestInfo({ auth: user, method: "GET" });
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
  // Expanding obeys the viewRule.
  if (guard.rule === withoutComments(collection.viewRule).trim()) return found;
  const info = new RequestInfo({ auth: user, method: "GET" });
  return found.filter((record) => app.canAccessRecord(record, info, collection.listRule));
}

/** A request of this user, as PocketBase's functions want it. */
function eventOf(app, user) {
  return { app, auth: user, request: { method: "GET", url: { path: "/api/realtime" }, header: {} } };
}

function hasEnrichHooks(app) {
  return app.onRecordEnrich().length() > 0;
}

/** Whether readers of one record may get different fields. */
function isPerReader(app, { collection }) {
  return collection.isAuth() || hasEnrichHooks(app);
}

/** The record as this user gets it. */
function asReader(app, user, record) {
  const [fresh] = [record.fresh()];
  $apis.enrichRecord(eventOf(app, user), fresh);
  return fresh;
}

module.exports = { combined, ruleFor, inRange, firstAfter, withIds, rangeAfter, existing, visibleIn, visibleOf, isPerReader, asReader };
