// Achievements: the server checks the conditions. Nobody unlocks an achievement by claiming it.

const { refuse, caller, answer, transaction, find, create, query, body, now, isPlain } = require(
  `${__hooks}/konvert/call.js`,
);
const { CATALOGUE } = require(`${__hooks}/konvert/achievement_catalogue.js`);

/** Largest distance of a time zone from UTC, in minutes. */
const MAX_ZONE = 14 * 60;
/** A message that is deleted within this time counts for "oops_all", in milliseconds. */
const SECOND_THOUGHTS_MS = 2000;
/** How long a request to invite somebody counts for "rescuer". */
const CALL_HOURS = 24;
/** Words of such a request, in plain text. */
const CALLS = ["обавьте", "обавь ", "ригласите", "ригласи ", "lease add", "lease invite", "omebody add"];

/** The caller's time zone, for conditions about the hour or the day. */
function zoneOf(value) {
  const minutes = Number(value ?? 0);
  const isZone = Number.isInteger(minutes) && Math.abs(minutes) <= MAX_ZONE;
  if (!isZone) refuse.invalid(`zone: minutes east of UTC, from -${MAX_ZONE} to ${MAX_ZONE}.`);
  return `${minutes < 0 ? "" : "+"}${minutes} minutes`;
}

/** Progress of the entries, as {id: number}, by a single query. */
function measure(app, user, entries, zone) {
  const counted = entries.filter(({ progress }) => progress);
  if (counted.length === 0) return {};
  const pairs = counted.map(({ id, progress }) => `'${id}', ${progress}`);
  return query(app, `SELECT json_object(${pairs.join(", ")}) value`, { user, zone });
}

const progressOf = (entry, measured, record) =>
  Math.min(Math.max(measured[entry.id] ?? 0, record ? record.getFloat("progress") : 0), entry.max);

/** The catalogue with one user's progress, and stored achievements that the catalogue does not have (imported). */
function list(e) {
  return answer(e, () => {
    caller(e);
    const user = e.request.pathValue("id");
    const zone = zoneOf(e.requestInfo().query.zone);
    if (!find(e.app, "users", "id = {:id}", { id: user })) refuse.missing("No such user.");
    const records = new Map();
    for (const record of e.app.findRecordsByFilter("achievements", "user = {:user}", "", 0, 0, { user })) {
      records.set(record.getString("achievement"), record);
    }
    const isOpen = ({ id }) => !records.get(id)?.getString("unlocked_at");
    const measured = measure(e.app, user, CATALOGUE.filter(isOpen), zone);
    const known = CATALOGUE.map((entry) => {
      const record = records.get(entry.id);
      const { progress: _, elsewhere, ...shown } = entry;
      if (elsewhere) shown.unavailable = true;
      const unlocked_at = isOpen(entry) ? "" : record.getString("unlocked_at");
      return { ...shown, progress: unlocked_at ? entry.max : progressOf(entry, measured, record), unlocked_at };
    });
    const ids = new Set(CATALOGUE.map(({ id }) => id));
    return { achievements: [...known, ...[...records.values()].map(unknown).filter(({ id }) => !ids.has(id))] };
  });
}

function unknown(record) {
  const id = record.getString("achievement");
  const text = { en: id, ru: id };
  const progress = record.getFloat("progress");
  const max = Math.max(progress, 1);
  const unlocked_at = record.getString("unlocked_at");
  return { id, name: text, description: text, rarity: "common", icon: "🏅", max, progress, unlocked_at };
}

function unlock(e) {
  return answer(e, () => {
    const me = caller(e);
    const entry = CATALOGUE.find(({ id }) => id === e.request.pathValue("id"));
    if (!entry) refuse.missing("No such achievement.");
    if (entry.elsewhere) refuse.unsupported("The server cannot check this condition, and does not grant it.");
    const zone = zoneOf(body(e).zone);
    return transaction(e.app, (tx) => {
      const existing = stored(tx, me.id, entry.id);
      if (existing && existing.getString("unlocked_at")) return { id: entry.id, unlocked: false };
      const progress = progressOf(entry, measure(tx, me.id, [entry], zone), existing);
      if (progress < entry.max)
        refuse.forbidden(`The condition is not met: ${progress} of ${entry.max}.`, { progress });
      put(tx, existing, { user: me.id, achievement: entry.id, progress: entry.max, unlocked_at: now() });
      return { id: entry.id, unlocked: true };
    });
  });
}

function stored(app, user, achievement) {
  return find(app, "achievements", "user = {:user} && achievement = {:achievement}", { user, achievement });
}

function put(tx, existing, values) {
  if (!existing) return create(tx, "achievements", values);
  existing.load(values);
  tx.save(existing);
}

/** Counts an event that leaves no record to count. */
function count(tx, user, achievement) {
  const { max } = CATALOGUE.find(({ id }) => id === achievement);
  const existing = stored(tx, user, achievement);
  const progress = existing ? existing.getFloat("progress") : 0;
  if (progress < max) put(tx, existing, { user, achievement, progress: progress + 1 });
}

/** After an invitation: the notification that "magnet" counts may be deleted later. */
function invited(tx, inviter, room) {
  count(tx, inviter, "magnet");
  const since = new Date(Date.now() - CALL_HOURS * 3_600_000).toISOString().replace("T", " ");
  const words = CALLS.map((call) => `instr(content, '${call}') > 0`).join(" OR ");
  const sql = `SELECT json_array(EXISTS (SELECT 1 FROM messages
    WHERE room = {:room} AND created >= {:since} AND author != {:inviter} AND type = 'text' AND (${words}))) value`;
  if (query(tx, sql, { room, since, inviter })[0]) count(tx, inviter, "rescuer");
}

/** A request to delete a message: authors who delete at once, or before anybody has read it. */
function deleting(e) {
  const { record, auth } = e;
  const author = record.getString("author");
  if (isPlain(e) || !auth || auth.id !== author) return e.next();
  const isQuick = Date.now() - Date.parse(record.getString("created").replace(" ", "T")) <= SECOND_THOUGHTS_MS;
  const [others, readers] = query(
    e.app,
    `SELECT json_array(count(*), count(CASE WHEN last_read >= {:created} THEN 1 END)) value
     FROM room_members WHERE room = {:room} AND user != {:author}`,
    { room: record.getString("room"), created: record.getString("created"), author },
  );
  e.next();
  if (!isQuick && !(others > 0 && readers === 0)) return;
  transaction(e.app, (tx) => {
    if (isQuick) count(tx, author, "oops_all");
    if (others > 0 && readers === 0) count(tx, author, "ninja");
  });
}

module.exports = { list, unlock, invited, deleting };
