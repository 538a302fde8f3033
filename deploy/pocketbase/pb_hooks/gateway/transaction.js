/**
 * Runs `work(tx)` for a record event inside a transaction: `work` has to go on with the event (`e.next()`), and either
 * all of it is committed or nothing. In a batch or a cascade it joins the transaction that is already there.
 *
 * Inside, only `tx` may be used: a write through $app would wait for this transaction to end, for ever,
 * and with it every other write of the server.
 */
function joinTransaction(e, work) {
  const app = e.app;
  try {
    app.runInTransaction((tx) => {
      e.app = tx;
      work(tx);
    });
  } finally {
    e.app = app; // what comes after the commit must not use the finished transaction
  }
}

/** Goes on with a record event, and with `then(tx)` in the same transaction. */
function inTransaction(e, then) {
  joinTransaction(e, (tx) => {
    e.next();
    then(tx);
  });
}

module.exports = { joinTransaction, inTransaction };
