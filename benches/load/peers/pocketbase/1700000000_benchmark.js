// Public messages, and messages visible only to subscribers naming the right room.
migrate((app) => {
  for (const [name, rule] of [
    ["messages", ""],
    ["messages_in_rooms", "room = @request.query.room"],
  ]) {
    app.save(
      new Collection({
        type: "base",
        name,
        listRule: rule,
        viewRule: rule,
        createRule: "",
        fields: [
          { type: "text", name: "room" },
          { type: "text", name: "content", max: 100000 },
        ],
      }),
    );
  }
});
