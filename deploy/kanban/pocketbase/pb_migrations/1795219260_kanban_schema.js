/// <reference path="../pb_data/types.d.ts" />

// A kanban tool, the second application of the tests. Its schema differs from the chat's wherever the gateway might
// depend on the chat's schema. Auth collections `members` and `staff`; workspaces with memberships, boards, lists,
// cards, comments; fields of every type; rules that decide access through a parent's memberships.
migrate(
  (app) => {
    const me = "@request.auth.id";
    const signedIn = `${me} != "" && @request.auth.suspended = false`;
    const member = (at) => `${at}memberships_via_workspace.member ?= ${me}`;

    const text = (name, options) => ({ type: "text", name, ...options });
    const bool = (name) => ({ type: "bool", name });
    const date = (name) => ({ type: "date", name });
    const select = (name, ...values) => ({ type: "select", name, values, maxSelect: 1 });
    const link = (name, { id }, options) => ({ type: "relation", name, collectionId: id, maxSelect: 1, ...options });
    const part = (name, collection) => link(name, collection, { required: true, cascadeDelete: true });
    const times = [
      { type: "autodate", name: "created", onCreate: true },
      { type: "autodate", name: "updated", onCreate: true, onUpdate: true },
    ];
    const make = (type, name, fields) => {
      const collection = new Collection({ type, name, fields: [...fields, ...times] });
      app.save(collection);
      return collection;
    };
    const rule = (collection, rules) => {
      const all = (one) => ({ listRule: one, viewRule: one, createRule: one, updateRule: one, deleteRule: one });
      Object.assign(collection, typeof rules === "string" ? all(rules) : rules);
      app.save(collection);
    };

    const members = make("auth", "members", [
      text("name"),
      select("plan", "free", "pro"),
      bool("suspended"),
      text("secret_note", { hidden: true }),
    ]);
    const staff = make("auth", "staff", [text("name"), bool("suspended")]);
    const workspaces = make("base", "workspaces", [
      text("name"),
      link("owner", members),
      { type: "json", name: "settings", maxSize: 2_000_000 },
      bool("open"),
    ]);
    const memberships = make("base", "memberships", [
      part("workspace", workspaces),
      part("member", members),
      select("role", "viewer", "editor", "admin"),
      date("expires"),
    ]);
    const boards = make("base", "boards", [
      part("workspace", workspaces),
      text("title", { max: 2_000_000 }),
      select("visibility", "workspace", "private"),
      link("guests", members, { maxSelect: 50 }),
      text("internal", { hidden: true }),
    ]);
    const lists = make("base", "lists", [part("board", boards), text("title"), { type: "number", name: "position" }]);
    const labels = make("base", "labels", [part("board", boards), text("name")]);
    const cards = make("base", "cards", [
      part("list", lists),
      link("board", boards, { cascadeDelete: true }),
      text("title", { max: 2_000_000 }),
      { type: "editor", name: "body", maxSize: 6_000_000 },
      link("assignees", members, { maxSelect: 2000 }),
      link("labels", labels, { maxSelect: 20 }),
      { type: "json", name: "meta", maxSize: 30_000_000 },
      { type: "geoPoint", name: "place" },
      date("due"),
      { type: "number", name: "points" },
      bool("done"),
      { type: "file", name: "files", maxSelect: 5, maxSize: 20 << 20 },
      { type: "file", name: "secret_files", maxSelect: 5, maxSize: 20 << 20, protected: true },
      text("cost", { hidden: true }),
      { type: "url", name: "link" },
      { type: "email", name: "mail" },
      { type: "password", name: "pin" },
      text("slug", { max: 5000 }),
    ]);
    const comments = make("base", "card_comments", [
      part("card", cards),
      link("author", members),
      text("text"),
      bool("internal"),
    ]);
    comments.fields.add(
      new RelationField({ name: "parent", collectionId: comments.id, maxSelect: 1, cascadeDelete: true }),
    );
    app.save(comments);
    make("base", "audit", [text("what", { max: 5000 }), link("card", cards)]);
    const tickets = make("base", "tickets", [link("owner", staff), text("subject")]);
    const notices = make("base", "notices", [text("title"), bool("published")]);

    rule(members, {
      listRule: signedIn,
      viewRule: signedIn,
      createRule: "",
      updateRule: `id = ${me}`,
      deleteRule: `id = ${me}`,
    });
    rule(staff, { listRule: signedIn, viewRule: signedIn });
    rule(workspaces, `${signedIn} && (open = true || owner = ${me} || ${member("")})`);
    rule(memberships, `${signedIn} && (member = ${me} || workspace.owner = ${me})`);
    const guest = `guests.id ?= ${me}`;
    rule(
      boards,
      `${signedIn} && (workspace.owner = ${me} || (visibility = "workspace" && ${member("workspace.")}) || ${guest})`,
    );
    rule(lists, `${signedIn} && (board.workspace.owner = ${me} || ${member("board.workspace.")})`);
    rule(labels, signedIn);
    rule(
      cards,
      `${signedIn} && (board.workspace.owner = ${me} || ${member("board.workspace.")} || assignees.id ?= ${me})`,
    );
    rule(comments, `${signedIn} && (internal = false || @request.auth.plan = "pro")`);
    rule(tickets, { listRule: `owner = ${me}`, viewRule: `owner = ${me}` });
    rule(notices, { listRule: "published = true", viewRule: "published = true" });

    const settings = app.settings();
    Object.assign(settings.batch, { enabled: true, maxRequests: 300, timeout: 30, maxBodySize: 0 });
    app.save(settings);
  },
  () => {},
);
