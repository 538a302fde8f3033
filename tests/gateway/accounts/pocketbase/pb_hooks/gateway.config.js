// An application with two auth collections, superusers and guests.
module.exports = {
  users: [
    { collection: "members", bannedUntil: "banned_until", mutedUntil: "muted_until", blocked: "blocked" },
    { collection: "staff", bannedUntil: "suspended_until" },
    "_superusers",
  ],
  guests: true,

  channels: {
    room: { guard: "rooms" },
    vault: { guard: "vaults" },
    user: { own: true },
    crew: { own: "staff" },
    status: { guard: ["members", "staff"] },
  },
  updates: { "room-updates": "room" },

  relay: {
    rooms: ["room:{id}"],
    notes: { to: ["room:{room}"], trusted: true },
    members: { to: ["user:{id}"], trusted: true },
    staff: ["crew:{id}"],
    vaults: ["vault:{id}"],
  },
};
