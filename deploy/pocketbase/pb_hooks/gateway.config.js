// The gateway's settings for your application: the only file to edit.
//
// Three questions are answered here:
//
//   1. Which users may connect?                           users, guests
//   2. Which channels exist, and who may subscribe?       channels
//   3. Which changes in PocketBase go to which channels?  relay, updates
//
// As it is, the file lets the accounts of the collection "users" connect and see each other's online status. For your
// own data, add a line under `channels` and a line under `relay`. A chat with rooms and messages needs:
//
//   under `channels`:  room: { guard: "rooms" },
//   under `relay`:     messages: ["room:{room}"],
//
// Then users with permission to view the room "abc" may subscribe to the channel "room:abc", and every message with
// "abc" in its field `room` is sent to this channel. deploy/konvert is a complete example.
//
// PocketBase reads the file at its start. After a change of the file PocketBase restarts by itself (not on Windows, nor
// with --hooksWatch=false: restart it there). With a mistake in the file, a running PocketBase keeps the config from
// before the change, and a stopped PocketBase does not start; the output names the setting and suggests a correction.
module.exports = {
  // The auth collection whose tokens the gateway accepts. With more settings, or with several collections:
  //
  //   users: [
  //     {
  //       collection: "users",
  //       bannedUntil: "banned_until", // a date field: until then, the user may not connect
  //       mutedUntil: "muted_until",   // a date field: until then, the user may listen but not publish signals
  //       blocked: "blocked",          // a relation to users: the user gets no signals from these
  //     },
  //     "staff",        // in the gateway, users of a second or later collection are called "staff/ID"
  //     "_superusers",  // superusers may subscribe to every channel, as in PocketBase
  //   ],
  users: "users",

  // Whether the gateway accepts connections without a token. Such a guest has access wherever your rules ask for no
  // login.
  guests: false,

  // The kinds of channels, and who may subscribe. A channel's name is its kind, a colon and an ID: "room:abc".
  channels: {
    // A personal channel: only the user with this ID may subscribe to "user:ID". `own: "staff"` would make it a channel
    // of the users in "staff".
    user: { own: true },

    // A user's online status: users with permission (viewRule of "users") to view the user ID may subscribe to
    // "status:ID". The gateway publishes here by itself; nothing can be relayed to "status" channels.
    status: { guard: "users" },

    // A channel for each record of a collection: users with permission (viewRule of "rooms") to view the record ID may
    // subscribe to "room:ID".
    //
    //   room: { guard: "rooms" },
    //
    // The hooks read from the viewRule which records access depends on. When such a record or the rule changes, the
    // gateway checks the channel's subscribers again, and ends subscriptions without permission. If you know that a
    // record concerns a single user, but the rule does not show it, `perUser` limits the check to this user: "a record
    // of room_members only concerns the user in its field `user`".
    //
    //   room: { guard: "rooms", perUser: { room_members: "user" } },
    //
    // The gateway asks PocketBase without headers, query parameters and body. If the viewRule uses @request.headers,
    // @request.query or @request.body, confirm that empty values are intended:
    //
    //   room: { guard: "rooms", emptyRequest: true },
  },

  // One channel with the changes of all records that a user may list and view, such as the user's list of rooms. On the
  // left the channel's name, on the right a kind of channel from above: its guard is the collection.
  //
  //   updates: { "room-updates": "room" },
  updates: {},

  // On the left a collection, on the right the channels of its changes: every create, update and delete of a record is
  // sent to these channels. {braces} contain a field of the changed record; a dot follows a relation. When the room
  // itself is deleted, the subscribers of its channel are unsubscribed (code 2102) instead of a `delete` for each record:
  //
  //   relay: {
  //     rooms: ["room:{id}"],                // a room's own changes
  //     messages: ["room:{room}"],           // a message goes to the room in its field `room`
  //     reactions: ["room:{message.room}"],  // a reaction goes to the room of its message
  //   },
  //
  // Every subscriber of the channel must also have permission to view the record. The hooks compare the two viewRules,
  // and PocketBase does not start if the rules do not prove this. If you know that the permission is given, say so:
  //
  //   messages: { to: ["room:{room}"], trusted: true },
  relay: {},

  // Settings with defaults, shown here:
  //
  //   outbox: {
  //     keepSeconds: 600,      // how long a change is kept after the gateway has confirmed it
  //     maxEventBytes: 262144, // a larger record is sent as its ID alone, and clients fetch the record; at most a
  //                            //   quarter of each gateway's max_queue_size (1 MiB by default)
  //   },
  //   delivery: {
  //     timeoutSeconds: 1,     // how long a write may wait for the gateway
  //     firstPauseSeconds: 1,  // pause in the posts after a failure; doubled after each further failure
  //     lastPauseSeconds: 30,  // longest pause
  //     batch: 100,            // most changes in one request
  //   },
};
