// The gateway's settings for the chat. deploy/pocketbase/pb_hooks/gateway.config.js explains all settings.
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
    pins: ["room:{room}"],
    polls: ["room:{room}"],
    friend_requests: ["user:{from}", "user:{to}"],
    room_keys: ["user:{user}"],
    achievements: ["user:{user}"],
    notifications: ["user:{user}"],
  },
};
