// What the gateway should know about your schema. This is the only file to edit.
// PocketBase refuses to start when something named here does not exist.
module.exports = {
  // The auth collection whose tokens the gateway accepts.
  users: "users",

  // Which channels there are, and who may subscribe. With `room: { guard: "rooms" }` the channel
  // "room:ID" is open to every user whom the viewRule of the collection `rooms` lets view record ID.
  // A locked (admin-only) viewRule closes the channel to everyone.
  channels: {
    room: { guard: "rooms" },
  },

  // Which changes are sent, and to which channels. Every create, update and delete in the collection on
  // the left goes to the channels on the right. {braces} hold a field of the changed record; a dot follows
  // a relation: {message.room} is the room of the message that a reaction belongs to.
  relay: {
    messages: ["room:{room}"],
    reactions: ["room:{message.room}"],
    rooms: ["room:{id}"],
    room_members: ["room:{room}"],
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
