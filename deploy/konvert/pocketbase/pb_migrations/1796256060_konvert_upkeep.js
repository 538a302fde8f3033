/// <reference path="../pb_data/types.d.ts" />

// Deletion of direct rooms and accounts, the friend request of a notification, favourites without a fixed name, and
// polls whose message reads as text.
migrate(
  (app) => {
    const me = "@request.auth.id";
    const signedIn = `${me} != "" && @request.auth.banned_until <= @now`;

    // A direct room belongs to both users: nobody deletes it for the other. See DELETE /api/konvert/rooms/{id}.
    const rooms = app.findCollectionByNameOrId("rooms");
    rooms.deleteRule = `${signedIn} && owner = ${me} && type != "direct"`;
    app.save(rooms);
    app.db().newQuery("UPDATE rooms SET name = '' WHERE favorites = TRUE AND name = 'Favorites'").execute();

    // Users delete their account; admins delete accounts of others who are no admins.
    const users = app.findCollectionByNameOrId("users");
    users.deleteRule = `${signedIn} && (id = ${me} || (@request.auth.role = "admin" && role != "admin"))`;
    app.save(users);

    // A notification of a friend request goes with the request.
    const notifications = app.findCollectionByNameOrId("notifications");
    const requests = app.findCollectionByNameOrId("friend_requests");
    notifications.fields.add(
      new RelationField({ name: "request", collectionId: requests.id, maxSelect: 1, cascadeDelete: true }),
    );
    notifications.indexes = [
      ...notifications.indexes,
      "CREATE INDEX `idx_notifications_request` ON `notifications` (`request`)",
    ];
    app.save(notifications);
    notifications.updateRule = `${notifications.updateRule} && @request.body.request:changed = false`;
    app.save(notifications);
    app
      .db()
      .newQuery(
        `UPDATE notifications SET request = coalesce((SELECT r.id FROM friend_requests r
           WHERE r.\`from\` = notifications.\`from\` AND r.\`to\` = notifications.user), '')
         WHERE type = 'friend_request'`,
      )
      .execute();

    const polls = arrayOf(new DynamicModel({ message: "", question: "", options: "", anonymous: false }));
    app.db().newQuery("SELECT message, question, options, anonymous FROM polls WHERE message != ''").all(polls);
    for (const { message, question, options, anonymous } of polls) {
      const lines = JSON.parse(options).map((option, index) => `${index + 1}. ${option}`);
      const content = `📊 ${question}${anonymous ? " 🔒" : ""}\n\n${lines.join("\n")}`;
      app
        .db()
        .newQuery("UPDATE messages SET content = {:content} WHERE id = {:message} AND type = 'poll'")
        .bind({ message, content })
        .execute();
    }
  },
  (app) => {
    const me = "@request.auth.id";
    const signedIn = `${me} != "" && @request.auth.banned_until <= @now`;
    const rooms = app.findCollectionByNameOrId("rooms");
    rooms.deleteRule = `${signedIn} && owner = ${me}`;
    app.save(rooms);
    const users = app.findCollectionByNameOrId("users");
    users.deleteRule = `${signedIn} && id = ${me}`;
    app.save(users);
    const notifications = app.findCollectionByNameOrId("notifications");
    notifications.updateRule = notifications.updateRule.replace(" && @request.body.request:changed = false", "");
    notifications.indexes = notifications.indexes.filter((sql) => !sql.includes("`idx_notifications_request`"));
    notifications.fields.removeByName("request");
    app.save(notifications);
    app.db().newQuery("UPDATE rooms SET name = 'Favorites' WHERE favorites = TRUE AND name = ''").execute();
    // The content of polls' messages stays text.
  },
);
