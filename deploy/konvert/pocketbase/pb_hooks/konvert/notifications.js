// Notifications: records of one user, about an action of another.

const { create } = require(`${__hooks}/konvert/call.js`);

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

module.exports = { notify, trim };
