// Related records that channel templates lead through, such as the message of a reaction in {message.room}.
//
// A cascade deletes the parent's row first and its children after it, each child with a hook of its own in another
// JavaScript engine. So the hook of the parent leaves the row in the app's store until the cascade is done. Only one
// transaction writes at a time, so that this is never the row of another transaction.

const DELETED = "gateway.deleted/";

const keyOf = (collectionId, id) => `${collectionId}/${id}`;

/** Finds related records for the channels of one write, each once. */
class Relations {
  /** `before`: rows as they were before the write, [record …]; else the rows as they are now. */
  constructor(app, before) {
    this.app = app;
    this.before = before;
    this.found = null; // made when it is needed: most paths lead through no other record
  }

  /** `null` where there is none. */
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

/** Runs `work` while hooks in other engines find this row, which `work` deletes. */
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
