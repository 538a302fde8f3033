// Imported records that PocketBase validates: saved with the context of an import, which keeps the hooks from adding
// memberships and notifications, and the gateway's hooks from writing outbox rows.

const { query } = require(`${__hooks}/konvert/call.js`);
const { isBridged } = require(`${__hooks}/konvert/import_login.js`);

/** Context that marks the writes of an import. */
function importing() {
  return new Context(null, "gateway.import", true);
}

class Importer {
  constructor(tx, kind, force) {
    Object.assign(this, { tx, kind, force, collection: tx.findCollectionByNameOrId(kind) });
    this.result = { created: 0, updated: 0, unchanged: 0, rejected: [] };
  }

  save(rows) {
    const ids = JSON.stringify(rows.map(({ id }) => id));
    const sql = `SELECT json_group_array(id) value FROM ${this.kind} WHERE id IN (SELECT value FROM json_each({:ids}))`;
    this.present = new Set(query(this.tx, sql, { ids }));
    for (const row of rows) {
      try {
        this.result[this.one(row)] += 1;
      } catch (err) {
        this.result.rejected.push({ id: row.id, reason: reasonOf(err) });
      }
    }
    return this.result;
  }

  one(row) {
    if (!this.present.has(row.id)) {
      const made = new Record(this.collection);
      this.fill(made, row);
      if (this.kind === "users" && !row.hash) this.lock(made);
      this.store(made, row);
      this.present.add(row.id);
      return "created";
    }
    const record = this.tx.findRecordById(this.kind, row.id);
    // The second write of a record repeats its time; a later time here is a user's change.
    const since = record.getString("updated");
    const due = this.force || row.updated > since || (row.amend === true && row.updated >= since);
    if (!due || !this.differs(record, row)) return "unchanged";
    this.fill(record, row);
    this.store(record, row);
    return "updated";
  }

  /** Sets an unknown random password, the same for the users of a batch: hashing takes a twentieth of a second. */
  lock(record) {
    if (this.unknown) return putHash(record, this.unknown);
    record.setRandomPassword();
    this.unknown = record.getRaw("password").hash;
  }

  fill(record, row) {
    for (const [name, value] of Object.entries(row)) {
      if (!["hash", "amend", "created", "updated"].includes(name)) record.set(name, value);
    }
    if (row.hash) setHash(record, row.hash);
  }

  store(record, row) {
    for (const name of ["created", "updated"]) if (row[name]) record.setRaw(name, new DateTime(row[name]));
    this.tx.saveWithContext(importing(), record);
    if (row.updated) keepTime(this.tx, this.kind, record, row.updated);
  }

  differs(record, row) {
    if (row.hash && record.getRaw("password").hash !== row.hash) return true;
    return Object.entries(row).some(
      ([name, value]) => !["id", "hash", "amend"].includes(name) && !this.same(record, name, value),
    );
  }

  same(record, name, value) {
    if (typeof value === "boolean") return record.getBool(name) === value;
    if (typeof value === "number") return record.getFloat(name) === value;
    if (typeof value === "string") return record.getString(name) === value;
    const isJson = this.collection.fields.getByName(name).type() === "json";
    const stored = isJson ? JSON.parse(record.getString(name) || "null") : record.getStringSlice(name);
    return JSON.stringify(stored) === JSON.stringify(value);
  }
}

/** Sets `updated` to a time that PocketBase has replaced, since the time had not changed. */
function keepTime(tx, kind, record, updated) {
  if (record.getString("updated") === updated) return;
  const sql = `UPDATE ${kind} SET updated = {:updated} WHERE id = {:id}`;
  tx.nonconcurrentDB().newQuery(sql).bind({ updated, id: record.id }).execute();
}

/** Sets an old bcrypt hash, and clears the mark of a pending password. */
function setHash(record, hash) {
  putHash(record, hash);
  if (isBridged(record)) record.set("password_pending", false);
}

/** Sets a bcrypt hash, which makes the user's tokens invalid. */
function putHash(record, hash) {
  const value = record.getRaw("password");
  value.hash = hash;
  value.plain = "";
  record.setRaw("password", value);
  record.refreshTokenKey();
}

/** The fields with their faults, else the message. */
function reasonOf(err) {
  const data = err?.value?.data ?? err?.data;
  const text = data && Object.keys(data).length > 0 ? JSON.stringify(data) : String(err?.message ?? err);
  return text.slice(0, 500);
}

module.exports = { Importer, importing, keepTime, reasonOf };
