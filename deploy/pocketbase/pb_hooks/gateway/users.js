// The accounts of all auth collections in gateway.config.js, by the gateway's names for users.
//
// A user's KEY is the record's id for the first collection of `users`, and NAME/ID for the other collections. An id
// alone would be ambiguous: clients may choose the id of a new record, so records of two collections may have the same
// id. The empty KEY means guests.

const schema = require(`${__hooks}/gateway/schema.js`);

const GUEST = "";

/** KEY → auth record, for existing users; null for guests, if admitted. One query for each auth collection. */
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

/** The settings (`users` in schema.js) of the auth collection that a KEY belongs to. */
function accountOf(users, key) {
  const account = users.find((one) => one.key && key.startsWith(one.key)) || users.find((one) => !one.key);
  return account && isClear(users, key.slice(account.key.length)) ? account : undefined;
}

/** False for an id with a slash if there are several collections: the id could be read as another collection's KEY. */
function isClear(users, id) {
  return users.length === 1 || !id.includes("/");
}

/**
 * "COLLECTIONID/ID", from a token's claims → {record, account: settings of the auth collection}; only for existing
 * records of the config's auth collections. One query for each auth collection.
 */
function byToken(app, names) {
  const { users } = schema.current(app);
  const asked = new Map(users.map((account) => [account.id, { account, ids: new Set() }]));
  for (const name of names) {
    const [, collection, id] = /^([^/]+)\/([\s\S]+)$/.exec(name) || [];
    if (asked.has(collection) && isClear(users, id)) asked.get(collection).ids.add(id);
  }
  const found = new Map();
  for (const [collection, { account, ids }] of asked) {
    if (ids.size === 0) continue;
    for (const record of app.findRecordsByIds(collection, [...ids]))
      found.set(`${collection}/${record.id}`, { record, account });
  }
  return found;
}

/** The request of a user (null: a guest) for rules; the same as for a subscriber of PocketBase's own realtime. */
function requestOf(auth) {
  return new RequestInfo({ auth, method: "GET", context: "realtime" });
}

module.exports = { GUEST, byKey, byToken, accountOf, requestOf };
