// What every write of a collection of interest goes through, in a JavaScript engine of its own: opens the transaction in
// which the rows are written (see outbox.js), and posts them after the commit. It loads little, since PocketBase makes
// an engine for a single write when those of its pool are busy.

const listening = require(`${__hooks}/gateway/listening.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

/** Under this key an event's context carries its last row: {seq, event, told: the schema's version or null}. */
const ROW = "gateway.row";
/** Under this key the app's store has the version of the schema that the gateway was last told of. */
const TOLD = "gateway.told";

/** The app's store, which transactions share. */
const store = $app.store();

/** Goes on with a record event inside a transaction; posts what it has left in the outbox if that is its own. */
function write(e) {
  const { app } = e;
  if (app.isTransactional()) {
    listening.ensureAfter(e.record.tableName());
    return e.next();
  }
  try {
    app.runInTransaction((tx) => {
      e.app = tx;
      e.next();
    });
  } finally {
    e.app = app; // what comes after the commit must not use the finished transaction
  }
  deliver(e);
}

/** After the commit of a transaction that somebody else has opened. */
function committed(e) {
  e.next();
  deliver(e);
}

function deliver(e) {
  const row = e.context.value(ROW);
  if (!row) return;
  if (row.told) store.set(TOLD, row.told);
  const state = store.get(turns.STATE);
  if (state && turns.isCovered(state, row.seq, Date.now())) return;
  require(`${__hooks}/gateway/delivery.js`).deliver(e.app, row);
}

module.exports = { ROW, TOLD, write, committed };
