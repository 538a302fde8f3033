// Accounts: usernames, roles, bans and muting.

const { refuse, caller, answer, transaction, find, isImport, isMigrated, body } = require(`${__hooks}/konvert/call.js`);

const RANK = { user: 0, vip: 0, moderator: 1, admin: 2 };
/** End of a ban without an end. */
const FOREVER = "9999-12-31 23:59:59.000Z";
/** Longest ban with an end: ten years. */
const MAX_HOURS = 87600;

/** A record event of "users": checks the username and sets its key. */
function username(e) {
  if (!isMigrated(e.app)) return;
  const record = e.record;
  let name = record.getString("username");
  if (!name) {
    name = `user_${$security.randomStringWithAlphabet(10, "abcdefghijklmnopqrstuvwxyz0123456789")}`;
    record.set("username", name);
  }
  const changed = record.isNew() || record.original().getString("username") !== name;
  if (changed && !isImport(e)) {
    if (!/^[^\s@/:,]{2,50}$/.test(name)) {
      reject("validation_invalid_username", "A username has 2 to 50 characters, without blanks and without @ / : ,");
    }
    const taken = find(e.app, "users", "username_key = {:key} && id != {:id}", {
      key: name.toLowerCase(),
      id: record.id,
    });
    if (taken) reject("validation_not_unique", "This username is taken.");
  }
  record.set("username_key", name.toLowerCase());
}

function reject(code, message) {
  throw new BadRequestError(message, { username: new ValidationError(code, message) });
}

/** Sets a date field of a user whom the caller outranks. */
function sanction(e, field, until) {
  return answer(e, () => {
    const me = caller(e);
    if (RANK[me.getString("role")] < 1) refuse.forbidden("Only moderators and admins may do this.");
    const value = until();
    return transaction(e.app, (tx) => {
      const user = target(tx, e);
      if (user.id === me.id) refuse.forbidden("Nobody can do this to themselves.");
      if (RANK[user.getString("role")] >= RANK[me.getString("role")]) {
        refuse.forbidden("The user has the same or a higher role.");
      }
      user.set(field, value);
      tx.save(user);
      return { until: value };
    });
  });
}

function target(tx, e) {
  return find(tx, "users", "id = {:id}", { id: e.request.pathValue("id") }) ?? refuse.missing("No such user.");
}

/** The end of a period of `hours` from now; `otherwise` if no hours are given. */
function end(e, otherwise) {
  const { hours } = body(e);
  if (hours === undefined || hours === null) return otherwise();
  if (typeof hours !== "number" || !(hours > 0) || hours > MAX_HOURS) {
    refuse.invalid(`hours must be a number above 0 and up to ${MAX_HOURS}.`);
  }
  return after(hours);
}

function after(hours) {
  return new Date(Date.now() + hours * 3600_000).toISOString().replace("T", " ");
}

function setRole(e) {
  return answer(e, () => {
    const me = caller(e);
    if (me.getString("role") !== "admin") refuse.forbidden("Only admins may assign roles.");
    const { role } = body(e);
    if (!(role in RANK)) refuse.invalid(`role must be one of ${Object.keys(RANK).join(", ")}.`);
    return transaction(e.app, (tx) => {
      const user = target(tx, e);
      if (user.id === me.id) refuse.forbidden("Admins cannot change their own role.");
      user.set("role", role);
      tx.save(user);
    });
  });
}

module.exports = {
  username,
  setRole,
  ban: (e) => sanction(e, "banned_until", () => end(e, () => FOREVER)),
  unban: (e) => sanction(e, "banned_until", () => ""),
  mute: (e) => sanction(e, "muted_until", () => end(e, () => after(24))),
  unmute: (e) => sanction(e, "muted_until", () => ""),
};
