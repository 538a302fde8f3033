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
    messages: ["room:{room}"],
    reactions: ["room:{message.room}"],
    room_members: ["room:{room}"],
    rooms: ["room:{id}"],
    friend_requests: ["user:{from}", "user:{to}"],
    room_keys: ["user:{user}"],
    achievements: ["user:{user}"],
  },
};
