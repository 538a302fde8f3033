// Updates channels: each user receives the changes of all records of a guard that the user may list and view, as with
// PocketBase's own topic for a whole collection.
//
// The gateway makes two kinds of requests: all visible records of a user or a class (see sharing.js), page by page, and
// access to single records. Both stop after a fraction of a second; the gateway asks again for the rest.

const schema = require(`${__hooks}/gateway/schema.js`);
const sharing = require(`${__hooks}/gateway/sharing.js`);
const sight = require(`${__hooks}/gateway/sight.js`);
const { textOf } = require(`${__hooks}/gateway/export.js`);
const { filterOfUser } = require(`${__hooks}/gateway/filter.js`);
const { operands } = require(`${__hooks}/gateway/rule.js`);

/** Milliseconds for one answer; the page or check at hand is completed. */
const BUDGET = 100;
/** Maximum checks of a user per query. */
const CHECKS = 100;

/** Whether this is a class ("~" and the name of the class) instead of a user's KEY. No id has a quotation mark. */
function isClass(user) {
  return user.startsWith('~["');
}

/** Whether this is the name of an updates channel. */
function serves(app, channel) {
  return typeof channel === "string" && Object.hasOwn(schema.current(app).updates, channel);
}

/** The names of the updates channels with this collection's records. */
function telling(app, collection) {
  const { channels, updates } = schema.current(app);
  const tellsOf = (name) => channels[updates[name]].guards.some((guard) => guard.name === collection);
  return Object.keys(updates).filter(tellsOf);
}

/** Whether an updates channel has this collection's records. */
function tells(app, collection) {
  return telling(app, collection).length > 0;
}

/** The part of an event for updates channels; `users`: KEYs of the users named by the record or `original`. */
function of(app, record, original) {
  const users = new Set();
  for (const { id, key } of schema.current(app).users) {
    for (const name of sharing.relationsTo(record.collection(), { id })) {
      const ids = [record, original].flatMap((version) => (version ? version.getStringSlice(name) : []));
      ids.forEach((user) => users.add(key + user));
    }
  }
  return { channels: telling(app, record.tableName()), users: [...users] };
}

function guardOf(app, channel) {
  const { channels, updates } = schema.current(app);
  const namespace = updates[channel];
  const [guard] = channels[namespace].guards;
  if (!guard)
    throw new Error(
      `gateway: the guard of "${namespace}" was deleted; correct channels.${namespace} in gateway.config.js`,
    );
  const collection = app.findCachedCollectionByNameOrId(guard.id);
  const rule = sight.combined([collection.listRule, collection.viewRule]);
  const looksAtContext = operands(rule || "").some(({ name }) => name.startsWith("@request.context"));
  return { namespace, collection, rule, looksAtContext };
}

/**
 * {namespace, collection, page: {class, yes, no, next}} for the user with this KEY, or for a class ("~" and its name);
 * `page` is null for an unknown user or class.
 *
 *   class  name of the user's class; null: the rule has no classes
 *   yes    IDs of visible records after `after`: for a user with a class only of the records that name the user
 *   no     IDs of records that name the user, visible to the class but not to the user
 *   next   the ID before the next page; null after the last page
 */
function visible(app, channel, users, key, after, rows) {
  const guard = guardOf(app, channel);
  const next = pages(app, guard, users, key, rows);
  const answer = { namespace: guard.namespace, collection: guard.collection.name, page: null };
  const end = Date.now() + BUDGET;
  while (next) {
    const { yes, no = [], ...page } = next(after);
    if (answer.page) {
      answer.page = { ...page, yes: answer.page.yes.concat(yes), no: answer.page.no.concat(no) };
    } else {
      answer.page = { ...page, yes, no };
    }
    after = page.next;
    if (after === null || Date.now() >= end) break;
  }
  return answer;
}

/** A function for the page after an ID; null for an unknown user or class. */
function pages(app, guard, users, key, rows) {
  const ranges = (name, seen) => (after) => {
    const range = sight.rangeAfter(app, guard, after, rows);
    return { class: name, yes: range ? seen(range) : [], next: range && range.next ? range.last : null };
  };
  if (isClass(key)) {
    const name = key.slice(1);
    const filter = guard.rule !== null && sharing.filterOfClass(app, guard, name);
    return filter ? ranges(name, (range) => sight.inRange(app, guard, filter, range)) : null;
  }
  if (!users.has(key)) return null;
  const user = users.get(key);
  const shared = user && sharing.sharingOf(app, guard, user.collection());
  if (!shared) return ranges(null, (range) => sight.visibleIn(app, guard, user, range));
  return (after) => named(app, guard, shared, user, after, rows);
}

/** A page of the records that name the user. */
function named(app, guard, shared, user, after, rows) {
  const name = sharing.classOf(shared, user);
  const ofClass = sharing.filterOfClass(app, guard, name);
  const ofUser = filterOfUser(guard.rule, user);
  let last = null;
  // IDs of records that name the user by these paths; IDs after `last` belong to the next page.
  const find = (filter, ways) => {
    const found = new Set();
    for (const path of ways) {
      const ids = sight.firstAfter(app, guard, filter, `${path} ?= {:pageUser}`, { pageUser: user.id }, after, rows);
      if (ids.length === rows && (last === null || !isAfter(ids[rows - 1], last))) last = ids[rows - 1];
      ids.forEach((id) => found.add(id));
    }
    return found;
  };
  const { paths } = shared;
  const linked = ofUser ? null : sharing.filterOfLinked(guard, shared, user);
  const shown = find(ofClass, paths);
  const seen = ofUser ? find(ofUser, paths) : linked ? find(linked.filter, [linked.path]) : new Set();
  const others = linked ? paths.filter((path) => path !== linked.path) : paths;
  const unknown = ofUser ? new Set() : find({ text: "", values: {} }, others);
  const here = (id) => last === null || !isAfter(id, last);
  const open = [...unknown].filter((id) => here(id) && !seen.has(id));
  for (const { id } of sight.visibleOf(app, guard, user, open)) seen.add(id);
  const no = [...shown].filter((id) => here(id) && !seen.has(id));
  return { class: name, yes: [...seen].filter(here), no, next: last };
}

/** The order of IDs in the database, by Unicode code points; JavaScript's own is by UTF-16 units. */
function isAfter(id, other) {
  const [points, others] = [[...id], [...other]];
  const i = points.findIndex((point, at) => point !== others[at]);
  if (i < 0) return false;
  return i >= others.length || points[i].codePointAt(0) > others[i].codePointAt(0);
}

/**
 * {results, records, own, perReader, truncated} for the first checks, {user: KEY or "~" and a class, record}.
 *
 *   results    true if the user (or each user of the class whom the record does not name) may view the record; null if
 *              the record does not exist
 *   records    ID → body of visible records; own: index of a check → body for this reader, where `perReader` is true
 *   truncated  IDs of records too large or nested too deep for an event; the body is the ID alone
 */
function view(app, channel, users, checks) {
  const guard = guardOf(app, channel);
  const perReader = sight.isPerReader(app, guard);
  const exist = sight.existing(app, guard, [...new Set(checks.map((check) => check.record))]);
  const [results, records, own, truncated] = [[], {}, {}, new Set()];
  const body = (record) => {
    if (textOf(app, record) !== null) return record;
    truncated.add(record.id);
    return { id: record.id };
  };
  const end = Date.now() + BUDGET;
  while (results.length < checks.length && (results.length === 0 || Date.now() < end)) {
    const first = results.length;
    const { user: key } = checks[first];
    const some = checks.slice(first, first + CHECKS);
    const others = some.findIndex((check) => check.user !== key);
    const ids = (others < 0 ? some : some.slice(0, others)).map((check) => check.record);
    const seen = seenOf(
      app,
      guard,
      users,
      key,
      ids.filter((id) => exist.has(id)),
    );
    ids.forEach((id, i) => {
      results.push(exist.has(id) ? seen.has(id) : null);
      if (!seen.has(id) || (perReader && isClass(key))) return;
      if (perReader) own[first + i] = body(sight.asReader(app, users.get(key), seen.get(id)));
      else if (!records[id]) records[id] = body(seen.get(id));
    });
  }
  return { results, records, own, perReader, truncated: [...truncated] };
}

/** ID → record, for the records visible to a user or class. */
function seenOf(app, guard, users, key, ids) {
  let found = [];
  if (isClass(key)) {
    const filter = guard.rule !== null && sharing.filterOfClass(app, guard, key.slice(1));
    if (filter) found = sight.withIds(app, guard, filter, ids);
  } else if (users.has(key)) {
    found = sight.visibleOf(app, guard, users.get(key), ids);
  }
  return new Map(found.map((record) => [record.id, record]));
}

module.exports = { isClass, serves, tells, of, visible, view };
