// What the gateway should know about the chat. All settings are explained in deploy/pocketbase/pb_hooks/gateway.config.js.
module.exports = {
  users: {
    collection: "users",
    bannedUntil: "banned_until",
    mutedUntil: "muted_until",
    blocked: "blocked",
  },

  channels: {
    room: { guard: "rooms", perUser: { room_members: "user" } },
    user: { own: true },
    status: { guard: "users" },
  },

  updates: { "room-updates": "room" },

  relay: {
    // Anybody may listen to a public room, and joins it to read what was said before: the rules of these collections
    // ask for a membership, the channel of a public room does not.
    messages: { to: ["room:{room}"], trusted: true },
    reactions: { to: ["room:{message.room}"], trusted: true },
    room_members: { to: ["room:{room}"], trusted: true },
    rooms: ["room:{id}"],
    friend_requests: ["user:{from}", "user:{to}"],
    room_keys: ["user:{user}"],
    achievements: ["user:{user}"],
  },
};
