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
  const account = users.find((account) => account.key && key.startsWith(account.key)) || users.find((account) => !account.key);
  return account && isClear(users, key.slice(account.key.length)) ? account : undefined;
}

/** False for ids with a slash where there are several collections: such an id could read as another collection's KEY. */
function isClear(users, id) {
  return users.length === 1 || !id.includes("/");
}

/**
 * "COLLECTIONID/ID", from a token's claims → {record, account: settings of the auth collection}; only existing records of
 * the config's auth collections. One query per auth collection.
 */
function byToken(app, names) {
  const { users } = schema.current(app);
  const asked = new Map(users.map((account) => [account.id, { account, ids: new Set() }]));
  for (const name of names) {
    const [, collection, id] = /^([^/]+)\/([^]+)$/.exec(name) || [];
    if (asked.has(collection) && isClear(users, id)) asked.get(collection).ids.add(id);
  }
  const found = new Map();
  for (const [collection, { account, ids }] of asked) {
    if (ids.size === 0) continue;
    for (const record of app.findRecordsByIds(collection, [...ids])) found.set(`${collection}/${record.id}`, { record, account });
  }
  return found;
}

/** The request of a user (null: a guest) as rules see it: the same as for a subscriber of PocketBase's own realtime. */
function requestOf(auth) {
  return new RequestInfo({ auth, method: "GET", context: "realtime" });
}

module.exports = { GUEST, byKey, byToken, accountOf, requestOf };
