// What follows the commit of a row: its delivery to the gateway. It loads little, since PocketBase makes an engine for a
// single hook when those of its pool are busy.

const listening = require(`${__hooks}/gateway/listening.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

/** Under this key an event's context carries the number of its last row, where others will commit it. */
const ROW = "gateway.row";

/** The app's store, which transactions share. */
const store = $app.store();

/** An event has left a row, {seq, event}: posts it now, or after the commit where it is in somebody else's transaction. */
function delivered(e, app, collection, row) {
  if (!app.isTransactional()) return deliver(app, row.seq, row);
  if (collection) listening.ensureAfter(collection);
  e.context = new Context(e.context, ROW, row.seq);
}

/** After the commit of a transaction that somebody else has opened. */
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
