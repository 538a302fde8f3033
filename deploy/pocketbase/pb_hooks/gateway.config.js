// What the gateway should know about your application. This is the only file to edit; PocketBase does not start while
// something in it is wrong, and says what. It is read once, when PocketBase starts.
module.exports = {
  // The auth collection whose tokens the gateway accepts. With more settings, or with several collections:
  //
  //   users: [
  //     {
  //       collection: "users",
  //       bannedUntil: "banned_until", // a date field: until then, the user may not connect
  //       mutedUntil: "muted_until",   // a date field: until then, the user may listen but not publish signals
  //       blocked: "blocked",          // a relation to users: whose signals this user does not want
  //     },
  //     "staff",        // this collection's users are called "staff/ID" in the gateway
  //     "_superusers",  // may listen everywhere, as in PocketBase
  //   ],
  users: "users",

  // Whether a connection without a token is let in, as a guest who may listen wherever your rules ask for no login.
  guests: false,

  // The kinds of channels, and who may subscribe.
  channels: {
    // "user:ID" is open to the user with this id alone.
    user: { own: true },

    // "status:ID" tells who is online; open to everybody whom the viewRule of "users" lets view this user.
    status: { guard: "users" },

    // "room:ID" would be open to everybody whom the viewRule of the collection "rooms" lets view the record ID:
    //
    //   room: { guard: "rooms" },
    //
    // What the rule looks at is read from the rule itself: subscribers are checked anew whenever such a record changes,
    // and when the rule does. `perUser` makes that cheaper where the rule does not say it clearly: "a record of
    // room_members concerns only the access of the user in its field user":
    //
    //   room: { guard: "rooms", perUser: { room_members: "user" } },
    //
    // The gateway asks without headers, query and body. Where a rule looks at these, say that this is meant:
    //
    //   room: { guard: "rooms", emptyRequest: true },
  },

  // Channels that tell each user of all records of a guard that they may list and view, and of no others:
  //
  //   updates: { "room-updates": "room" },
  updates: {},

  // Which changes are sent, and to which channels. Every create, update and delete in the collection on the left goes
  // to the channels on the right. {braces} hold a field of the changed record; a dot follows a relation:
  //
  //   relay: {
  //     messages: ["room:{room}"],
  //     reactions: ["room:{message.room}"],
  //   },
  //
  // Everybody who may listen to the channel must be allowed to view the record as well. PocketBase does not start where
  // the two viewRules do not show that, unless you vouch for it:
  //
  //   messages: { to: ["room:{room}"], trusted: true },
  relay: {},

  // These have defaults:
  //
  //   outbox: {
  //     keepSeconds: 600,      // how long a change is kept after the gateway has confirmed it
  //   },
  //   delivery: {
  //     timeoutSeconds: 1,     // how long a write may wait for the gateway
  //     firstPauseSeconds: 1,  // after a failure the gateway is left alone for so long, then for twice as long
  //     lastPauseSeconds: 30,  //   each time, up to this
  //     batch: 100,            // changes in one request, at most
  //   },
};
