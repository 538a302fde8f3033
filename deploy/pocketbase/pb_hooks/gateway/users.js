// The accounts of all auth collections that gateway.config.js names, by the gateway's own names for them.
//
// A user's KEY is the record's id for the first of `users`, and NAME/ID for the others: whoever creates a record
// chooses its id, so records of two collections may have the same. The empty KEY stands for guests.

const schema = require(`${__hooks}/gateway/schema.js`);

const GUEST = "";

/** KEY → auth record of those that exist, null for guests where they are let in; one query for each auth collection. */
function byKey(app, keys) {
  const { users, guests } = schema.current(app);
  const found = new Map();
  const asked = new Map(users.map(({ id }) => [id, new Map()]));
  for (const key of new Set(keys)) {
    if (key === GUEST) {
      if (guests) found.set(GUEST, null);
      continue;
    }
    const account = accountOf(users, key);
    if (account) asked.get(account.id).set(key.slice(account.key.length), key);
  }
  for (const [collection, ids] of asked) {
    if (ids.size === 0) continue;
    for (const record of app.findRecordsByIds(collection, [...ids.keys()])) found.set(ids.get(record.id), record);
  }
  return found;
}

/** The account settings (see schema.js) of the auth collection that a KEY belongs to. */
function accountOf(users, key) {
  const other = users.find((account) => account.key && key.startsWith(account.key));
  if (other) return other;
  // With several collections an id with a slash could pass for a record of another one.
  const first = users.find((account) => !account.key);
  return first && (users.length === 1 || !key.includes("/")) ? first : undefined;
}

module.exports = { GUEST, byKey, accountOf };
