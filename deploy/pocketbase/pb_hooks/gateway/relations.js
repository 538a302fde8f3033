// Related records on the paths of channel templates, such as the message of a reaction in {message.room}.
//
// A cascade deletes the parent's row first and the children's rows afterwards. The hook of a child runs in another
// JavaScript engine and still needs the parent. Therefore the parent's hook puts the row into the app's store until the
// end of the cascade. Only one transaction writes at a time, hence the row always belongs to the current transaction.

const DELETED = "gateway.deleted/";

const keyOf = (collectionId, id) => `${collectionId}/${id}`;

/** Lookup of related records for the channels of one write, with a cache. */
class Relations {
  /** `before`: records in the state before the write; undefined: every record is read in the current state. */
  constructor(app, before) {
    this.app = app;
    this.before = before;
    this.found = null; // created on demand, since most paths have no relation
  }

  /** The record; null if it does not exist. */
  find(collectionId, id) {
    const key = keyOf(collectionId, id);
    if (!this.found) {
      this.found = new Map((this.before || []).map((record) => [keyOf(record.collection().id, record.id), record]));
    }
    if (!this.found.has(key)) this.found.set(key, this.deleted(key) || this.stored(collectionId, id));
    return this.found.get(key);
  }

  deleted(key) {
    return this.before ? this.app.store().get(DELETED + key) : null;
  }

  stored(collectionId, id) {
    try {
      return this.app.findRecordById(collectionId, id);
    } catch {
      return null;
    }
  }
}

/** Runs `work`, which deletes the row; meanwhile hooks in other engines find the row in the app's store. */
function whileDeleting(app, row, work) {
  const key = DELETED + keyOf(row.collection().id, row.id);
  app.store().set(key, row);
  try {
    work();
  } finally {
    app.store().remove(key);
  }
}

module.exports = { Relations, whileDeleting };
