/**
 * Goes on with a record event inside a transaction, then runs `then(tx)` in the same one, so that either
 * everything is committed or nothing. In a batch or a cascade it joins the transaction that is already there.
 *
 * Inside, only `tx` may be used: a write through $app would wait for this transaction to end, for ever,
 * and with it every other write of the server.
 */
function inTransaction(e, then) {
  const app = e.app;
  try {
    app.runInTransaction((tx) => {
      e.app = tx;
      e.next();
      then(tx);
    });
  } finally {
    e.app = app; // what comes after the commit must not use the finished transaction
  }
}

module.exports = { inTransaction };
