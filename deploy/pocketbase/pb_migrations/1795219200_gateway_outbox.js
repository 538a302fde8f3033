/// <reference path="../pb_data/types.d.ts" />

// The gateway's outbox. A plain table and no collection: no API reaches it, and AUTOINCREMENT
// never gives a number twice, even after its row is gone.
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
