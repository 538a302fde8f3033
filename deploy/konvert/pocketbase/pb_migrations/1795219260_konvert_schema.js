/// <reference path="../pb_data/types.d.ts" />

// The collections of Konvert with their access rules, and the batch API for Konvert's client.
//
// How to read the rules: in a create rule, a plain field is the new record's value. In an update rule, a plain field is
// the stored value, and the caller's new value is in @request.body. All `?=` conditions on the same back-relation in a
// rule must be true for the same row: "member and moderator" means a single membership with both properties.
//
// A required membership (joined by &&) is looked up in the index. An alternative membership (joined by ||) makes SQLite
// scan all members of the room for each record, which is too slow for list rules.
migrate(
  (app) => {
    const me = "@request.auth.id";
    const signedIn = `${me} != "" && @request.auth.banned_until <= @now`;
    const notMuted = `@request.auth.muted_until <= @now`;
    const staff = `(@request.auth.role = "admin" || @request.auth.role = "moderator")`;

    const unchanged = (...fields) => fields.map((f) => `@request.body.${f}:changed = false`).join(" && ");

    // `at` is the path from the collection to the room: "" for rooms, "room." for messages.
    const member = (at) => `${at}room_members_via_room.user ?= ${me}`;
    // Permission to see a room includes its messages: a public room is visible to all signed-in users, other rooms to
    // their members. The condition starts from the user, who has fewer memberships than a large room has.
    const visible = (at) => `(${at}type = "public" || @request.auth.room_members_via_user.room ?= ${at}id)`;
    const owner = (at) => `(${member(at)} && ${at}room_members_via_room.role ?= "owner")`;
    const moderator = (at) =>
      `(${member(at)} && (${at}room_members_via_room.role ?= "owner" || ${at}room_members_via_room.role ?= "moderator"))`;

    const text = (name, options) => ({ type: "text", name, ...options });
    const date = (name) => ({ type: "date", name });
    const select = (name, ...values) => ({ type: "select", name, values, required: true });
    const image = (name) => ({
      type: "file",
      name,
      maxSize: 5 << 20,
      mimeTypes: ["image/jpeg", "image/png", "image/webp", "image/gif"],
    });
    // `part`: the record belongs to the target of the relation and is deleted with the target.
    const part = (name, collection) => ({
      type: "relation",
      name,
      collectionId: collection.id,
      required: true,
      cascadeDelete: true,
    });
    // `link`: a plain relation, emptied when the target is deleted.
    const link = (name, collection, maxSelect = 1) => ({
      type: "relation",
      name,
      collectionId: collection.id,
      maxSelect,
    });
    const times = [
      { type: "autodate", name: "created", onCreate: true },
      { type: "autodate", name: "updated", onCreate: true, onUpdate: true },
    ];

    const create = (name, { fields, indexes = [], rules }) => {
      const collection = new Collection({ type: "base", name, fields: [...fields, ...times] });
      collection.indexes = indexes;
      Object.assign(collection, rules);
      app.save(collection);
      return collection;
    };

    // ---- users: PocketBase has created the collection, with name and avatar

    const users = app.findCollectionByNameOrId("users");
    users.fields.add(new SelectField({ name: "role", values: ["user", "moderator", "admin"] }));
    users.fields.add(new TextField({ name: "status_text", max: 200 }));
    users.fields.add(new TextField({ name: "public_key", max: 8192 }));
    users.fields.add(new DateField({ name: "banned_until" }));
    users.fields.add(new DateField({ name: "muted_until" }));
    users.fields.add(new RelationField({ name: "blocked", collectionId: users.id, maxSelect: 1000 }));
    app.save(users); // first the fields, since the rules refer to them

    users.listRule = signedIn;
    users.viewRule = signedIn;
    users.createRule = `(role = "" || role = "user") && banned_until = "" && muted_until = ""`;
    users.updateRule =
      `${signedIn} && (@request.auth.role = "admin" || ` +
      `(id = ${me} && ${unchanged("role", "banned_until", "muted_until")}))`;
    users.deleteRule = `${signedIn} && id = ${me}`;
    users.authRule = `banned_until <= @now`;
    app.save(users);

    // ---- rooms and members: the rules of rooms refer to memberships, so they are set after both collections exist

    const rooms = create("rooms", {
      fields: [
        text("name", { max: 200 }),
        select("type", "public", "private", "direct"),
        link("owner", users),
        image("avatar"),
      ],
    });

    const roomMembers = create("room_members", {
      fields: [
        part("room", rooms),
        part("user", users),
        select("role", "member", "moderator", "owner"),
        date("last_read"),
        { type: "bool", name: "muted" },
      ],
      indexes: [
        "CREATE UNIQUE INDEX `idx_room_members_room_user` ON `room_members` (`room`, `user`)",
        "CREATE INDEX `idx_room_members_user` ON `room_members` (`user`)",
      ],
    });
    Object.assign(roomMembers, {
      listRule: `${signedIn} && ${visible("room.")}`,
      viewRule: `${signedIn} && ${visible("room.")}`,
      // Users join a public room by themselves. Moderators and the owner add members; only the owner adds moderators.
      createRule:
        `${signedIn} && ((user = ${me} && role = "member" && room.type = "public") || ` +
        `(role = "member" && ${moderator("room.")}) || (role = "moderator" && ${owner("room.")}))`,
      // Users change their own read mark and muting. The owner assigns roles to other members, except "owner".
      updateRule:
        `${signedIn} && ${unchanged("room", "user")} && (` +
        `(user = ${me} && ${unchanged("role")}) || ` +
        `(role != "owner" && @request.body.role != "owner" && ${unchanged("last_read", "muted")} && ${owner("room.")}))`,
      // Members cannot leave a direct room: another user could take the free place and read the conversation.
      deleteRule:
        `${signedIn} && room.type != "direct" && (user = ${me} || ` +
        `(role = "member" && ${moderator("room.")}) || (role != "owner" && ${owner("room.")}))`,
    });
    app.save(roomMembers);

    // ---- messages

    const mayEdit = `${member("room.")} && (author = ${me} || ${staff} || ${moderator("room.")})`;
    const messages = create("messages", {
      fields: [
        part("room", rooms),
        link("author", users),
        text("content", { max: 64 << 10 }),
        select("type", "text", "image", "file", "voice", "system"),
        link("mentions", users, 100),
        { type: "file", name: "files", maxSelect: 10, maxSize: 25 << 20, protected: true },
        date("edited_at"),
      ],
      indexes: ["CREATE INDEX `idx_messages_room_created` ON `messages` (`room`, `created`)"],
      rules: {
        listRule: `${signedIn} && ${visible("room.")}`,
        viewRule: `${signedIn} && ${visible("room.")}`,
        createRule: `${signedIn} && ${notMuted} && author = ${me} && ${member("room.")}`,
        updateRule: `${signedIn} && ${notMuted} && ${unchanged("room", "author")} && ${mayEdit}`,
        deleteRule: `${signedIn} && ${mayEdit}`,
      },
    });

    // Links to messages. PocketBase searches for links whenever a message is deleted, hence the indexes.
    messages.fields.add(new RelationField({ name: "reply_to", collectionId: messages.id, maxSelect: 1 }));
    messages.fields.add(new RelationField({ name: "forwarded_from", collectionId: messages.id, maxSelect: 1 }));
    messages.indexes = [
      ...messages.indexes,
      "CREATE INDEX `idx_messages_reply_to` ON `messages` (`reply_to`)",
      "CREATE INDEX `idx_messages_forwarded_from` ON `messages` (`forwarded_from`)",
    ];
    app.save(messages);

    rooms.fields.add(new RelationField({ name: "pinned_message", collectionId: messages.id, maxSelect: 1 }));
    rooms.indexes = ["CREATE INDEX `idx_rooms_pinned_message` ON `rooms` (`pinned_message`)"];
    app.save(rooms);
    Object.assign(rooms, {
      listRule: `${signedIn} && ${visible("")}`,
      viewRule: `${signedIn} && ${visible("")}`,
      createRule: `${signedIn} && owner = ${me} && pinned_message = ""`,
      // A private conversation must not become public later, so the type cannot be changed.
      updateRule:
        `${signedIn} && ${unchanged("type", "owner")} && ${moderator("")} && ` +
        `(${unchanged("pinned_message")} || @request.body.pinned_message = "" || @request.body.pinned_message.room = id)`,
      deleteRule: `${signedIn} && owner = ${me}`,
    });
    app.save(rooms);

    create("reactions", {
      fields: [part("message", messages), part("user", users), text("emoji", { required: true, max: 64 })],
      indexes: [
        "CREATE UNIQUE INDEX `idx_reactions_message_user_emoji` ON `reactions` (`message`, `user`, `emoji`)",
        "CREATE INDEX `idx_reactions_user` ON `reactions` (`user`)",
      ],
      rules: {
        listRule: `${signedIn} && ${visible("message.room.")}`,
        viewRule: `${signedIn} && ${visible("message.room.")}`,
        createRule: `${signedIn} && ${notMuted} && user = ${me} && ${member("message.room.")}`,
        updateRule: null, // a reaction is deleted and created again
        deleteRule: `${signedIn} && user = ${me}`,
      },
    });

    // ---- people

    create("friend_requests", {
      fields: [part("from", users), part("to", users), select("status", "pending", "accepted", "rejected")],
      indexes: [
        "CREATE UNIQUE INDEX `idx_friend_requests_from_to` ON `friend_requests` (`from`, `to`)",
        "CREATE INDEX `idx_friend_requests_to` ON `friend_requests` (`to`)",
      ],
      rules: {
        listRule: `${signedIn} && (from = ${me} || to = ${me})`,
        viewRule: `${signedIn} && (from = ${me} || to = ${me})`,
        createRule: `${signedIn} && from = ${me} && to != ${me} && status = "pending"`,
        updateRule: `${signedIn} && to = ${me} && ${unchanged("from", "to")} && @request.body.status != "pending"`,
        // The sender cannot delete a rejected request; otherwise the request could be repeated for ever.
        deleteRule: `${signedIn} && (to = ${me} || (from = ${me} && status != "rejected"))`,
      },
    });

    create("room_keys", {
      fields: [
        part("room", rooms),
        part("user", users),
        text("encrypted_key", { required: true, max: 8192 }),
        { type: "number", name: "key_version", onlyInt: true, min: 0 },
      ],
      indexes: [
        "CREATE UNIQUE INDEX `idx_room_keys_room_user_version` ON `room_keys` (`room`, `user`, `key_version`)",
        "CREATE INDEX `idx_room_keys_user` ON `room_keys` (`user`)",
      ],
      rules: {
        listRule: `${signedIn} && user = ${me}`,
        viewRule: `${signedIn} && user = ${me}`,
        // A member encrypts the room's key for another member, the only reader of this record. Keys are for members
        // only, since each key is an event in the reader's personal channel.
        createRule: `${signedIn} && ${member("room.")} && user.room_members_via_user.room ?= room`,
        updateRule: null, // a new key is a new version
        deleteRule: `${signedIn} && user = ${me}`,
      },
    });

    create("achievements", {
      fields: [
        part("user", users),
        text("achievement", { required: true, max: 100 }),
        { type: "number", name: "progress", min: 0 },
        date("unlocked_at"),
      ],
      indexes: ["CREATE UNIQUE INDEX `idx_achievements_user_achievement` ON `achievements` (`user`, `achievement`)"],
      // Created by the server only.
      rules: { listRule: signedIn, viewRule: signedIn, createRule: null, updateRule: null, deleteRule: null },
    });

    const settings = app.settings();
    settings.batch.enabled = true;
    app.save(settings);
  },

  (app) => {
    const settings = app.settings();
    settings.batch.enabled = false;
    app.save(settings);

    for (const name of ["achievements", "room_keys", "friend_requests", "reactions"]) {
      app.delete(app.findCollectionByNameOrId(name));
    }

    // These collections refer to each other, in their rules too, so first the rules and references are removed.
    const rooms = app.findCollectionByNameOrId("rooms");
    const messages = app.findCollectionByNameOrId("messages");
    const roomMembers = app.findCollectionByNameOrId("room_members");
    for (const collection of [rooms, messages, roomMembers]) {
      for (const rule of ["listRule", "viewRule", "createRule", "updateRule", "deleteRule"]) collection[rule] = null;
      app.save(collection);
    }
    rooms.indexes = [];
    rooms.fields.removeByName("pinned_message");
    app.save(rooms);
    for (const collection of [messages, roomMembers, rooms]) app.delete(collection);

    const users = app.findCollectionByNameOrId("users");
    const own = "id = @request.auth.id";
    Object.assign(users, {
      listRule: own,
      viewRule: own,
      createRule: "",
      updateRule: own,
      deleteRule: own,
      authRule: "",
    });
    app.save(users);
    for (const field of ["role", "status_text", "public_key", "banned_until", "muted_until", "blocked"]) {
      users.fields.removeByName(field);
    }
    app.save(users);
  },
);
