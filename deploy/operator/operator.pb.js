/// <reference path="../pb_data/types.d.ts" />

// Commands of PocketBase for operators: `prepare`, `snapshot`, `remove-snapshot` and `rows`. The commands work beside a
// running PocketBase. --hooksDir names this folder, so that the application's hooks do not run.

// prepare: the first superuser and the proxy's header, before the first start. An existing superuser stays as it is.
$app.rootCmd.addCommand(
  new Command({
    use: "prepare",
    short: "Create the superuser from $SUPERUSER_EMAIL and $SUPERUSER_PASSWORD, and trust the proxy's X-Real-IP",
    run: () => {
      const email = $os.getenv("SUPERUSER_EMAIL");
      const password = $os.getenv("SUPERUSER_PASSWORD");
      const settings = $app.settings();
      if (settings.trustedProxy.headers.length === 0) {
        settings.trustedProxy.headers = ["X-Real-IP"];
        $app.save(settings);
      }
      if ($app.countRecords("_superusers", $dbx.not($dbx.hashExp({ email: "__pbinstaller@example.com" }))) > 0) {
        console.log("superuser: exists");
        return;
      }
      const superuser = new Record($app.findCollectionByNameOrId("_superusers"));
      superuser.setEmail(email);
      superuser.setPassword(password);
      $app.save(superuser);
      console.log("superuser: created");
    },
  }),
);

// snapshot DIR: a consistent copy of both databases, by SQLite's VACUUM INTO, which reads in one transaction and lets
// writers continue.
$app.rootCmd.addCommand(
  new Command({
    use: "snapshot",
    short: "Write consistent copies of the databases into a new folder",
    run: (_command, args) => {
      const folder = args[0];
      if (!folder) throw new Error("snapshot: name a folder that does not exist yet");
      $os.mkdirAll(folder, 0o700);
      const quoted = (name) => `'${$filepath.join(folder, name).replaceAll("'", "''")}'`;
      $app
        .db()
        .newQuery(`VACUUM INTO ${quoted("data.db")}`)
        .execute();
      $app
        .auxDB()
        .newQuery(`VACUUM INTO ${quoted("auxiliary.db")}`)
        .execute();
    },
  }),
);

// remove-snapshot DIR: removes the copy, since the image has no shell.
$app.rootCmd.addCommand(
  new Command({
    use: "remove-snapshot",
    short: "Remove the folder of a snapshot",
    run: (_command, args) => {
      if (!args[0] || $filepath.base(args[0]) !== ".snapshot")
        throw new Error("remove-snapshot: name a folder .snapshot");
      $os.removeAll(args[0]);
    },
  }),
);

// rows: the number of rows of each table, after SQLite's own check of both databases. A line per table, sorted by name.
$app.rootCmd.addCommand(
  new Command({
    use: "rows",
    short: "Check the databases and print the rows of each table",
    run: () => {
      const all = (db, query, shape) => {
        const found = arrayOf(new DynamicModel(shape));
        db.newQuery(query).all(found);
        return Array.from(found);
      };
      for (const [name, db] of [
        ["data", $app.db()],
        ["auxiliary", $app.auxDB()],
      ]) {
        const check = all(db, "PRAGMA integrity_check", { integrity_check: "" }).map((row) => row.integrity_check);
        if (check.join() !== "ok") throw new Error(`rows: ${name}.db is damaged: ${check.join("; ")}`);
        const tables = all(
          db,
          "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
          { name: "" },
        );
        for (const table of tables) {
          const quoted = `"${table.name.replaceAll('"', '""')}"`;
          const [{ count }] = all(db, `SELECT count(*) AS count FROM ${quoted}`, { count: 0 });
          console.log(`rows ${name} ${table.name} ${count}`);
        }
      }
    },
  }),
);
