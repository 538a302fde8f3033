/**
 * Runs `work(tx)` for a record event inside a transaction. `work` has to continue the event (`e.next()`); either all
 * writes are committed or none. In a batch or a cascade, `work` joins the existing transaction.
 *
 * Inside, only `tx` may be used: a write through $app would wait for this transaction for ever, and block every other
 * write of the server.
 */
function joinTransaction(e, work) {
  const app = e.app;
  try {
    app.runInTransaction((tx) => {
      e.app = tx;
      work(tx);
    });
  } finally {
    e.app = app; // hooks after the commit must not use the finished transaction
  }
}

/** Continues a record event, then runs `then(tx)` in the same transaction. */
function inTransaction(e, then) {
  joinTransaction(e, (tx) => {
    e.next();
    then(tx);
  });
}

module.exports = { joinTransaction, inTransaction };
