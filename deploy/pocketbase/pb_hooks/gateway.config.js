// What the gateway should know about your schema. This is the only file to edit.
// PocketBase refuses to start when something named here does not exist.
module.exports = {
  users: {
    // The auth collection whose tokens the gateway accepts.
    collection: "users",
    // Until when a user is banned or muted (date fields), and whom he blocks (a relation to the users).
    // Leave out what your schema does not have.
    bannedUntil: "banned_until",
    mutedUntil: "muted_until",
    blocked: "blocked",
  },

  // Which channels there are, and who may subscribe. With `room: { guard: "rooms" }` the channel
  // "room:ID" is open to every user whom the viewRule of the collection `rooms` lets view record ID.
  // A locked (admin-only) viewRule closes the channel to everyone.
  //
  // What the rule looks at is read from the rule itself, so subscribers are checked anew whenever one of
  // those records or fields changes, and when the rule does. `perUser` makes that cheaper: "a record of
  // room_members concerns only the access of the user in its field `user`". Without it everybody in the
  // room is checked, unless the rule itself says so clearly (`room_members_via_room.user ?= @request.auth.id`,
  // or `@request.auth.room_members_via_user.room ?= id`, and nothing else about room_members).
  // Writes that bypass PocketBase's hooks, such as plain SQL, are not noticed.
  channels: {
    room: { guard: "rooms", perUser: { room_members: "user" } },
    // The personal channel: "user:ID" is open to the user with this ID and to nobody else.
    user: { own: true },
    // Who is online. Whoever may view a user's record may see it; nothing is relayed here.
    status: { guard: "users" },
  },

  // Channels that tell every user of the records that he may view, and of no other: "room-updates" of
  // all records of the guard of `room`. Their names have no colon.
  updates: { "room-updates": "room" },

  // Which changes are sent, and to which channels. Every create, update and delete in the collection on
  // the left goes to the channels on the right. {braces} hold a field of the changed record; a dot follows
  // a relation: {message.room} is the room of the message that a reaction belongs to.
  relay: {
    messages: ["room:{room}"],
    reactions: ["room:{message.room}"],
    rooms: ["room:{id}"],
    room_members: ["room:{room}"],
    friend_requests: ["user:{from}", "user:{to}"],
    room_keys: ["user:{user}"],
    achievements: ["user:{user}"],
  },

  outbox: {
    // How long a change is kept after the gateway confirmed it, in seconds. Gateways that
    // were away for less than this continue where they stopped.
    keepSeconds: 600,
  },

  delivery: {
    // How long a write may wait for the gateway, in whole seconds.
    timeoutSeconds: 1,
    // After a failure the gateway is left alone for the first pause, then for twice as long
    // each time, up to the last. It fetches by itself what it missed.
    firstPauseSeconds: 1,
    lastPauseSeconds: 30,
    // The most changes that one request carries.
    batch: 100,
  },
};
