// Delivery of an outbox row after its commit. This module loads little code: while the engines of the pool are busy,
// PocketBase creates a JavaScript engine for a single call.

const listening = require(`${__hooks}/gateway/listening.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

/** Key in an event's context: the number of the event's last row, inside a transaction of the application. */
const ROW = "gateway.row";

/** The app's store, which transactions share. */
const store = $app.store();

/** Posts an event's row, {seq, event}; inside a transaction of the application only after its commit. */
function delivered(e, app, collection, row) {
  if (!app.isTransactional()) return deliver(app, row.seq, row);
  if (collection) listening.ensureAfter(collection);
  e.context = new Context(e.context, ROW, row.seq);
}

/** Called after the commit of a transaction of the application. */
function committed(e) {
  e.next();
  const seq = e.context.value(ROW);
  if (seq) deliver(e.app, seq, null);
}

function deliver(app, seq, own) {
  const state = store.get(turns.STATE);
  if (state && turns.isCovered(state, seq, Date.now())) return;
  require(`${__hooks}/gateway/delivery.js`).deliver(app, seq, own);
}

module.exports = { delivered, committed };
