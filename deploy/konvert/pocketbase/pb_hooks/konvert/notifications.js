// Notifications: records of one user, about an action of another.

const { refuse, caller, answer, transaction, find, create } = require(`${__hooks}/konvert/call.js`);

/** Days that a read notification is kept. */
const KEEP_DAYS = 30;

/** Notifies a user of another user's action. `values` are fields of "notifications". */
function notify(tx, values) {
  if (values.user !== values.from) create(tx, "notifications", { ...values, read: false });
}

/** Deletes notifications that were read long ago, without an event for each. */
function trim(app) {
  const before = new Date(Date.now() - KEEP_DAYS * 86_400_000).toISOString().replace("T", " ");
  app.db().newQuery("DELETE FROM notifications WHERE read = TRUE AND created < {:before}").bind({ before }).execute();
}

/** Deletes a notification of the caller. One that is gone already is no error: an answered request takes its own along. */
function remove(e) {
  return answer(e, () => {
    const me = caller(e);
    return transaction(e.app, (tx) => {
      const found = find(tx, "notifications", "id = {:id}", { id: e.request.pathValue("id") });
      if (!found) return;
      if (found.getString("user") !== me.id) refuse.missing("No such notification.");
      tx.delete(found);
    });
  });
}

module.exports = { notify, trim, remove };
