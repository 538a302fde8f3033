/// <reference path="../pb_data/types.d.ts" />

// The gateway's outbox: a plain table instead of a collection, so that no API has access. AUTOINCREMENT never assigns a
// number twice, even after the row was deleted.
migrate(
  (app) => {
    app
      .db()
      .newQuery(
        `CREATE TABLE _gateway_outbox (
           seq     INTEGER PRIMARY KEY AUTOINCREMENT,
           created INTEGER NOT NULL, -- unix milliseconds
           event   TEXT NOT NULL     -- {"channels":[…],"data":{…},"access":[…]}
         )`,
      )
      .execute();
  },
  (app) => {
    app.db().newQuery("DROP TABLE _gateway_outbox").execute();
  },
);
