/// <reference path="../pb_data/types.d.ts" />

// Application code for the tests: writes from JavaScript in every way that PocketBase offers.

// One transaction: a card moves to another board and back, a card is created and deleted, and the first card gets a
// title.
routerAdd("POST", "/kanban/transaction", (e) => {
  const { card: id, from, to, list } = e.requestInfo().body;
  e.app.runInTransaction((tx) => {
    const card = tx.findRecordById("cards", id);
    for (const board of [to, from]) {
      card.set("board", board);
      tx.save(card);
    }
    const passing = new Record(tx.findCollectionByNameOrId("cards"), { list, board: from, title: "passing" });
    tx.save(passing);
    tx.delete(passing);
    card.set("title", "after all");
    tx.save(card);
  });
  return e.json(200, {});
});

// A transaction that is rolled back.
routerAdd("POST", "/kanban/rollback", (e) => {
  try {
    e.app.runInTransaction((tx) => {
      const card = tx.findRecordById("cards", e.requestInfo().body.card);
      card.set("title", "never");
      tx.save(card);
      throw new Error("given up");
    });
  } catch {
    // as intended
  }
  return e.json(200, {});
});

// Many boards at once, for the tests of large teams; without a hook per board.
routerAdd("POST", "/kanban/boards", (e) => {
  const { workspace, from, to } = e.requestInfo().body;
  e.app
    .nonconcurrentDB()
    .newQuery(
      `INSERT INTO boards (id, workspace, title, visibility, guests, internal, created, updated)
       WITH RECURSIVE numbers(n) AS (SELECT {:from} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {:to})
       SELECT printf('b%014d', n), {:workspace}, 't' || n, 'workspace', '[]', '', '2026-01-01 00:00:00.000Z', '2026-01-01 00:00:00.000Z'
       FROM numbers`,
    )
    .bind({ workspace, from, to })
    .execute();
  return e.json(200, {});
});
