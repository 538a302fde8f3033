/// <reference path="../pb_data/types.d.ts" />

// Fields and collections for everything that the chat's users do: usernames, more kinds of messages, polls,
// notifications, pins, favourites, stored files. Ids may have up to 32 characters (a UUID without dashes).
migrate(
  (app) => {
    // Existing users get their name as username, if it fits and is the only one of its kind, else their id.
    const nameExisting = () => {
      const rows = arrayOf(new DynamicModel({ id: "", name: "" }));
      app.db().newQuery("SELECT id, name FROM users ORDER BY created").all(rows);
      const taken = new Set();
      for (const { id, name } of rows) {
        const fits = /^[^\s@/:,]{2,50}$/.test(name) && !taken.has(name.toLowerCase());
        const username = fits ? name : id;
        const key = username.toLowerCase();
        taken.add(key);
        app
          .db()
          .newQuery("UPDATE users SET username = {:username}, username_key = {:key} WHERE id = {:id}")
          .bind({ id, username, key })
          .execute();
      }
    };

    const me = "@request.auth.id";
    const signedIn = `${me} != "" && @request.auth.banned_until <= @now`;
    const unchanged = (...fields) => fields.map((f) => `@request.body.${f}:changed = false`).join(" && ");
    const visible = (at) => `(${at}type = "public" || @request.auth.room_members_via_user.room ?= ${at}id)`;

    const collection = (name) => app.findCollectionByNameOrId(name);
    const [users, rooms, messages] = ["users", "rooms", "messages"].map(collection);
    const text = (name, options) => ({ type: "text", name, ...options });
    const bool = (name) => ({ type: "bool", name });
    const select = (name, ...values) => ({ type: "select", name, values, maxSelect: 1, required: true });
    const part = (name, target, required = true) => ({
      type: "relation",
      name,
      collectionId: target.id,
      required,
      cascadeDelete: true,
      maxSelect: 1,
    });
    const ID_MAX = 32;
    const create = (name, { fields, indexes = [], rules }) => {
      const made = new Collection({
        type: "base",
        name,
        fields: [
          ...fields,
          { type: "autodate", name: "created", onCreate: true },
          { type: "autodate", name: "updated", onCreate: true, onUpdate: true },
        ],
      });
      made.indexes = indexes;
      Object.assign(made, rules);
      app.save(made); // adds the field "id"
      made.fields.getByName("id").max = ID_MAX;
      app.save(made);
      return made;
    };

    // ---- longer ids. The pattern stays: with other characters PocketBase compares ids without an index.

    for (const name of [
      "users",
      "rooms",
      "room_members",
      "messages",
      "reactions",
      "friend_requests",
      "room_keys",
      "achievements",
    ]) {
      const existing = collection(name);
      existing.fields.getByName("id").max = ID_MAX;
      app.save(existing);
    }

    // ---- users: `name` is the display name

    const people = collection("users");
    people.fields.getByName("role").values = ["user", "vip", "moderator", "admin"];
    people.fields.add(new TextField({ name: "username", max: 50 }));
    // The username in lower case, set by a hook: SQLite's own comparison folds only Latin letters.
    people.fields.add(new TextField({ name: "username_key", max: 100, hidden: true }));
    people.fields.add(new DateField({ name: "last_activity" }));
    people.fields.add(new BoolField({ name: "deleted" }));
    app.save(people);
    nameExisting();
    people.indexes = [
      ...people.indexes,
      "CREATE UNIQUE INDEX `idx_users_username_key` ON `users` (`username_key`) WHERE `username_key` != ''",
      "CREATE INDEX `idx_users_username` ON `users` (`username`)",
    ];
    app.save(people);

    // ---- rooms

    const room = collection("rooms");
    // Both users' ids of a direct room, smaller id first: "a:b". A pair of users has one direct room.
    room.fields.add(new TextField({ name: "direct_key", max: 80, hidden: true }));
    room.fields.add(new BoolField({ name: "favorites" })); // the owner's room for notes
    room.fields.add(new BoolField({ name: "deleted" })); // imported rooms that were deleted; they have no members
    room.indexes = [
      ...room.indexes,
      "CREATE UNIQUE INDEX `idx_rooms_direct_key` ON `rooms` (`direct_key`) WHERE `direct_key` != ''",
      "CREATE UNIQUE INDEX `idx_rooms_favorites` ON `rooms` (`owner`) WHERE `favorites` = TRUE",
    ];
    room.createRule = `${room.createRule} && favorites = false && deleted = false`;
    room.updateRule = `${room.updateRule} && ${unchanged("favorites", "deleted")}`;
    app.save(room);

    // A hidden direct room stays out of its user's list until the next message. Other members must not see it.
    const member = collection("room_members");
    member.fields.add(new DateField({ name: "hidden_at", hidden: true }));
    app.save(member);

    // ---- messages

    const message = collection("messages");
    message.fields.getByName("type").values = ["text", "image", "file", "voice", "audio", "video", "poll", "system"];
    message.fields.add(new BoolField({ name: "forwarded" }));
    message.fields.add(new BoolField({ name: "deleted" })); // imported messages that were deleted
    message.indexes = [...message.indexes, "CREATE INDEX `idx_messages_author_type` ON `messages` (`author`, `type`)"];
    // Messages of the system and polls are written by the server; so is the mark of a forwarded message.
    const plain = `type != "system" && type != "poll" && forwarded = false && deleted = false`;
    message.createRule = `${message.createRule} && ${plain}`;
    message.updateRule = `${message.updateRule} && ${unchanged("type", "forwarded", "deleted")}`;
    app.save(message);

    // ---- pins: several per room; rooms.pinned_message is the newest

    const readable = { listRule: `${signedIn} && ${visible("room.")}`, viewRule: `${signedIn} && ${visible("room.")}` };
    const server = { createRule: null, updateRule: null, deleteRule: null };
    create("pins", {
      fields: [part("room", rooms), part("message", messages), part("user", users, false)],
      indexes: [
        "CREATE UNIQUE INDEX `idx_pins_room_message` ON `pins` (`room`, `message`)",
        "CREATE INDEX `idx_pins_message` ON `pins` (`message`)",
        "CREATE INDEX `idx_pins_user` ON `pins` (`user`)",
      ],
      rules: { ...readable, ...server },
    });

    // ---- polls: `counts` are the votes of each option; the votes themselves are for the voter only

    const polls = create("polls", {
      fields: [
        part("room", rooms),
        part("message", messages, false),
        { type: "relation", name: "author", collectionId: users.id, maxSelect: 1 },
        text("question", { required: true, max: 500 }),
        { type: "json", name: "options", required: true, maxSize: 16384 },
        { type: "json", name: "counts", maxSize: 4096 },
        bool("anonymous"),
      ],
      indexes: [
        "CREATE INDEX `idx_polls_room` ON `polls` (`room`)",
        "CREATE INDEX `idx_polls_message` ON `polls` (`message`)",
      ],
      rules: { ...readable, ...server },
    });
    create("poll_votes", {
      fields: [part("poll", polls), part("user", users), { type: "number", name: "option", onlyInt: true, min: 0 }],
      indexes: [
        "CREATE UNIQUE INDEX `idx_poll_votes_poll_user` ON `poll_votes` (`poll`, `user`)",
        "CREATE INDEX `idx_poll_votes_user` ON `poll_votes` (`user`)",
      ],
      rules: { listRule: `${signedIn} && user = ${me}`, viewRule: `${signedIn} && user = ${me}`, ...server },
    });

    // ---- notifications, created by the server

    create("notifications", {
      fields: [
        part("user", users),
        select("type", "friend_request", "friend_accepted", "mention", "reaction", "room_invite"),
        part("from", users, false),
        part("room", rooms, false),
        part("message", messages, false),
        text("content", { max: 500 }),
        bool("read"),
      ],
      indexes: [
        "CREATE INDEX `idx_notifications_user_created` ON `notifications` (`user`, `created`)",
        "CREATE INDEX `idx_notifications_unread` ON `notifications` (`user`, `room`, `type`) WHERE `read` = FALSE",
        "CREATE INDEX `idx_notifications_from` ON `notifications` (`from`)",
        "CREATE INDEX `idx_notifications_room` ON `notifications` (`room`)",
        "CREATE INDEX `idx_notifications_message` ON `notifications` (`message`)",
      ],
      rules: {
        listRule: `${signedIn} && user = ${me}`,
        viewRule: `${signedIn} && user = ${me}`,
        createRule: null,
        updateRule: `${signedIn} && user = ${me} && ${unchanged("user", "type", "from", "room", "message", "content")}`,
        deleteRule: `${signedIn} && user = ${me}`,
      },
    });

    // ---- files under paths of their owner. Whoever knows the address of a file may read it: a name ends in ten random
    // characters, and the record with the name is visible to the owner only.

    const own = `${signedIn} && owner = ${me}`;
    create("files", {
      fields: [
        part("owner", users),
        text("path", { required: true, max: 500 }),
        { type: "file", name: "file", maxSelect: 1, maxSize: 50 << 20, required: true },
      ],
      indexes: ["CREATE UNIQUE INDEX `idx_files_owner_path` ON `files` (`owner`, `path`)"],
      rules: {
        listRule: own,
        viewRule: own,
        createRule: `${own} && @request.auth.muted_until <= @now`,
        updateRule: `${own} && ${unchanged("owner", "path")} && @request.auth.muted_until <= @now`,
        deleteRule: own,
      },
    });
  },

  (app) => {
    for (const name of ["files", "notifications", "poll_votes", "polls", "pins"]) {
      app.delete(app.findCollectionByNameOrId(name));
    }
    const change = (name, work) => {
      const collection = app.findCollectionByNameOrId(name);
      work(collection);
      app.save(collection);
    };
    const without = (indexes, ...names) => indexes.filter((sql) => !names.some((name) => sql.includes(`\`${name}\``)));
    const strip = (rule, ...parts) => parts.reduce((rest, part) => rest.replace(` && ${part}`, ""), rule);

    change("messages", (messages) => {
      messages.createRule = strip(
        messages.createRule,
        `type != "system" && type != "poll" && forwarded = false && deleted = false`,
      );
      messages.updateRule = strip(
        messages.updateRule,
        ["type", "forwarded", "deleted"].map((f) => `@request.body.${f}:changed = false`).join(" && "),
      );
      messages.indexes = without(messages.indexes, "idx_messages_author_type");
      messages.fields.removeByName("forwarded");
      messages.fields.removeByName("deleted");
      messages.fields.getByName("type").values = ["text", "image", "file", "voice", "system"];
    });
    change("rooms", (rooms) => {
      rooms.createRule = strip(rooms.createRule, "favorites = false && deleted = false");
      rooms.updateRule = strip(
        rooms.updateRule,
        ["favorites", "deleted"].map((f) => `@request.body.${f}:changed = false`).join(" && "),
      );
      rooms.indexes = without(rooms.indexes, "idx_rooms_direct_key", "idx_rooms_favorites");
      for (const field of ["direct_key", "favorites", "deleted"]) rooms.fields.removeByName(field);
    });
    change("room_members", (members) => members.fields.removeByName("hidden_at"));
    change("users", (users) => {
      users.indexes = without(users.indexes, "idx_users_username_key", "idx_users_username");
      for (const field of ["username", "username_key", "last_activity", "deleted"]) users.fields.removeByName(field);
      users.fields.getByName("role").values = ["user", "moderator", "admin"];
    });
    // Ids keep their length of up to 32 characters: records with such ids may exist.
  },
);
