// Your application's settings for the gateway, and the only file to edit. PocketBase reads the file at its start, and
// refuses to start with a sentence about the first mistake in the file.
module.exports = {
  // The auth collection of the accepted tokens. With more settings, or with several collections:
  //
  //   users: [
  //     {
  //       collection: "users",
  //       bannedUntil: "banned_until", // a date field: until then, the user may not connect
  //       mutedUntil: "muted_until",   // a date field: until then, the user may listen but not publish signals
  //       blocked: "blocked",          // a relation to users: the user gets no signals from these
  //     },
  //     "staff",        // users of this collection are called "staff/ID" in the gateway
  //     "_superusers",  // may listen everywhere, as in PocketBase
  //   ],
  users: "users",

  // Whether a connection without a token is accepted, as a guest with access wherever your rules ask for no login.
  guests: false,

  // The kinds of channels, and who may subscribe.
  channels: {
    // "user:ID" is open to the user with this id alone.
    user: { own: true },

    // "status:ID" carries a user's online status, for all users with permission (viewRule of "users") to view that user.
    status: { guard: "users" },

    // "room:ID" would be open to all users with permission (viewRule of "rooms") to view the record ID:
    //
    //   room: { guard: "rooms" },
    //
    // The hooks read from the rule which records access depends on: subscribers are checked again when such a record or
    // the rule changes. `perUser` limits the check to one user where the rule alone does not show the limit: "a record
    // of room_members only concerns the user in the field user":
    //
    //   room: { guard: "rooms", perUser: { room_members: "user" } },
    //
    // The gateway asks without headers, query and body. For a rule with @request.headers, @request.query or
    // @request.body, confirm that empty values are intended:
    //
    //   room: { guard: "rooms", emptyRequest: true },
  },

  // Channels with the changes of all records that a user may list and view:
  //
  //   updates: { "room-updates": "room" },
  updates: {},

  // Collections and the channels of their changes. Every create, update and delete in the collection on the left goes to
  // the channels on the right. {braces} hold a field of the changed record; a dot follows a relation:
  //
  //   relay: {
  //     messages: ["room:{room}"],
  //     reactions: ["room:{message.room}"],
  //   },
  //
  // Every listener of the channel must also be allowed to view the record. PocketBase does not start where the two
  // viewRules do not prove this, unless you vouch for the listeners:
  //
  //   messages: { to: ["room:{room}"], trusted: true },
  relay: {},

  // These have defaults:
  //
  //   outbox: {
  //     keepSeconds: 600,      // how long a confirmed change is kept
  //     maxEventBytes: 262144, // a larger record goes out as its id alone; at most a quarter of each gateway's
  //                            //   max_queue_size (1 MiB by default)
  //   },
  //   delivery: {
  //     timeoutSeconds: 1,     // how long a write may wait for the gateway
  //     firstPauseSeconds: 1,  // pause in the posts after a failure; doubled after each further failure
  //     lastPauseSeconds: 30,  // longest pause
  //     batch: 100,            // changes in one request, at most
  //   },
};
