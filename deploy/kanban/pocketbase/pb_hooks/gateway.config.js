// The kanban tool's config; see deploy/pocketbase/pb_hooks/gateway.config.js.
module.exports = {
  users: ["members", "staff", "_superusers"],
  guests: true,

  channels: {
    board: { guard: "boards" },
    workspace: { guard: "workspaces", perUser: { memberships: "member" } },
    notice: { guard: "notices" },
    topic: { guard: "boards" },
    member: { own: true },
    crew: { own: "staff" },
    status: { guard: ["members", "staff"] },
  },

  updates: { "board-updates": "board", "workspace-updates": "workspace", "notice-updates": "notice" },

  // Subscribers of a board or workspace see more here than the rules of these collections allow.
  relay: {
    workspaces: ["workspace:{id}"],
    memberships: { to: ["workspace:{workspace}", "member:{member}"], trusted: true },
    boards: ["board:{id}"],
    lists: { to: ["board:{board}"], trusted: true },
    labels: { to: ["board:{board}"], trusted: true },
    cards: { to: ["board:{board}", "member:{assignees}"], trusted: true },
    card_comments: { to: ["board:{card.board}"], trusted: true },
    members: { to: ["member:{id}"], trusted: true },
    audit: { to: ["topic:{what}"], trusted: true },
    tickets: ["crew:{owner}"],
    notices: ["notice:{id}"],
  },
};
