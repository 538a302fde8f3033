// gateway.config.js and the schema: refused configs and their messages, and the effect of changes in the schema.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test, { after, before, describe } from "node:test";
import { KANBAN, PASSWORD, PocketBase, install, run, until } from "./harness.mjs";

const CONFIG = "pb_hooks/gateway.config.js";

/** A function that replaces text in an installed file. */
const edit = (file, from, to) => (folder) => {
  const name = path.join(folder, file);
  const text = readFileSync(name, "utf8");
  const changed = text.replaceAll(from, to);
  assert.notEqual(changed, text, `${file} has no ${from}`);
  writeFileSync(name, changed);
};

describe("the config and the schema", () => {
  /** The output of a PocketBase that refuses to start. */
  const refused = (prepare) => {
    const folder = install(prepare, KANBAN);
    const { status, output } = run(folder, ["serve", "--http", "127.0.0.1:0"]);
    assert.equal(status, 1, output);
    return output;
  };
  const change = (from, to) => edit(CONFIG, from, to);
  const cases = [
    [
      "a collection in another letter case",
      change("lists: {", "Lists: {"),
      [`relay.Lists: there is no collection "Lists"; did you mean "lists"?`],
    ],
    [
      "a guard in another letter case",
      change(`board: { guard: "boards" }`, `board: { guard: "Boards" }`),
      [`channels.board.guard`, `did you mean "boards"?`],
    ],
    ["a field in another letter case", change("{board}", "{Board}"), [`has no field "Board"; did you mean "board"?`]],
    [
      "the own channel of another collection",
      change("crew:{owner}", "member:{owner}"),
      [`the channel belongs to users of "members", and the path does not lead to one`],
    ],
    [
      "records whose rule is narrower than the guard's",
      change(`boards: ["board:{id}"]`, `boards: ["board:{id}", "workspace:{workspace}"]`),
      [
        `relay.boards, "workspace:{workspace}"`,
        `users who may view "workspaces"`,
        `the viewRule of "boards" is @request.auth.id`,
        "trusted: true",
      ],
    ],
    [
      "records that are for superusers",
      change(`{ to: ["topic:{what}"], trusted: true }`, `["topic:{what}"]`),
      [`the viewRule of "audit" is locked`],
    ],
    [
      "records that lead to another collection than the guard's, by rules that look alike",
      (folder) => {
        const schema = `migrate((app) => {
          const members = app.findCollectionByNameOrId("members");
          const link = (name, { id }) => ({ type: "relation", name, collectionId: id, maxSelect: 1 });
          const make = (name, field, viewRule) => {
            const collection = new Collection({ type: "base", name, fields: [field] });
            app.save(collection);
            collection.viewRule = viewRule;
            app.save(collection);
            return collection;
          };
          make("wards", link("owner", members), "owner = @request.auth.id");
          const diaries = make("diaries", link("owner", members), "owner = @request.auth.id");
          make("entries", link("diary", diaries), "diary.owner = @request.auth.id");
        });`;
        writeFileSync(path.join(folder, "pb_migrations/1795219271_diaries.js"), schema);
        change("  channels: {", `  channels: {\n    ward: { guard: "wards" },`)(folder);
        change("  relay: {", `  relay: {\n    entries: ["ward:{diary}"],`)(folder);
      },
      [`relay.entries, "ward:{diary}"`, `users who may view "wards" would receive these records`],
    ],
    [
      "records that only a plan may view",
      change(`card_comments: { to: ["board:{card.board}"], trusted: true }`, `card_comments: ["board:{card.board}"]`),
      [`the viewRule of "card_comments"`],
    ],
    [
      "rules that look at headers",
      edit(
        "pb_migrations/1795219260_kanban_schema.js",
        `viewRule: "published = true" }`,
        `viewRule: "published = true && @request.headers.x_tenant = 'a'" }`,
      ),
      ["channels.notice", "looks at @request.headers.x_tenant", "emptyRequest: true"],
    ],
  ];
  /** A migration that makes one more auth collection without users, and adds fields to members. */
  const withFields = (prepare) => (folder) => {
    writeFileSync(
      path.join(folder, "pb_migrations/1795219272_fields.js"),
      `migrate((app) => {
      app.save(new Collection({ type: "auth", name: "people" }));
      const members = app.findCollectionByNameOrId("members");
      members.fields.add(new Field({ type: "date", name: "out_until" }));
      members.fields.add(new Field({ type: "relation", name: "foes", collectionId: members.id, maxSelect: 9 }));
      app.save(members);
    });`,
    );
    prepare(folder);
  };
  const users = (entry) => (folder) =>
    writeFileSync(
      path.join(folder, CONFIG),
      `module.exports = {
    users: ${entry}, channels: { board: { guard: "boards" } }, relay: { lists: ["board:{board}"] } };`,
    );
  cases.push(
    [
      "the own channel of another collection than the users'",
      change("own: true", `own: "stuff"`),
      [`channels.member.own: "stuff" is not one of users; did you mean "staff"?`],
    ],
    [
      "statuses of another collection than the users'",
      change(`guard: ["members", "staff"]`, `guard: "boards"`),
      [`channels.status.guard: "status" carries online statuses, and "boards" is not one of users`],
    ],
    [
      "users that do not exist, with a relay that needs the proof",
      users(`"peple"`),
      [`users: there is no collection "peple"`],
    ],
    ["users that are no auth collection", users(`"boards"`), [`users: "boards" is not an auth collection`]],
    [
      "users that do not exist, and a status of the right ones",
      (folder) => {
        writeFileSync(
          path.join(folder, CONFIG),
          `module.exports = { users: "membrs", channels: { status: { guard: "members" } } };`,
        );
      },
      [`users: there is no collection "membrs"; did you mean "members"?`],
    ],
    [
      "users in the spelling of another kind of collection",
      withFields(users(`"labels"`)),
      [`users: "labels" is not an auth collection; there are`, `"people"`],
    ],
    [
      "users like a collection that is no auth collection",
      users(`"board"`),
      [`users: there is no collection "board"; there are`, `"members"`],
    ],
    [
      "a ban in a field like another that is no date",
      withFields(users(`{ collection: "members", bannedUntil: "suspendd" }`)),
      [`users.bannedUntil: the collection "members" has no field "suspendd"; there are "out_until"`],
    ],
    [
      "a mute in a field that is no date",
      withFields(users(`{ collection: "members", mutedUntil: "suspended" }`)),
      [`users.mutedUntil: "suspended" of "members" is not a date; there are "out_until"`],
    ],
    [
      "blocked users in a field that is no relation",
      withFields(users(`{ collection: "members", blocked: "id" }`)),
      [`users.blocked: "id" of "members" is not a relation to "members"; there are "foes"`],
    ],
  );
  for (const [what, prepare, says] of cases) {
    test(`PocketBase does not start with ${what}`, () => {
      const output = refused(prepare);
      for (const text of says) assert.ok(output.includes(text), `${text}\n${output}`);
    });
  }

  test("collections are relayed if the rules make them viewable or the config marks them as trusted", async () => {
    const prepare = (folder) => {
      change(
        `boards: ["board:{id}"]`,
        `boards: { to: ["board:{id}", "workspace:{workspace}"], trusted: true }`,
      )(folder);
      change(`notice: { guard: "notices" }`, `notice: { guard: "notices", emptyRequest: true }`)(folder);
      edit(
        "pb_migrations/1795219260_kanban_schema.js",
        `viewRule: "published = true" }`,
        `viewRule: "published = true && @request.query.x = ''" }`,
      )(folder);
    };
    const pb = await PocketBase.start({ application: KANBAN, prepare });
    try {
      const { workspace, board } = await team(pb);
      const { last } = await pb.events();
      await pb.update("boards", board.id, { title: "B2" });
      assert.deepEqual((await pb.events(last)).events[0].channels, [`board:${board.id}`, `workspace:${workspace.id}`]);
    } finally {
      await pb.stop();
    }
  });
});

/** A member, and the member's workspace with a board and a list. */
async function team(pb) {
  const data = { email: "ann@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
  await pb.create("members", data);
  const ann = await pb.login(data.email, PASSWORD, "members");
  const workspace = await pb.create("workspaces", { name: "W", owner: ann.id });
  const board = await pb.create("boards", { workspace: workspace.id, title: "B", visibility: "workspace" });
  const list = await pb.create("lists", { board: board.id, title: "L" });
  return { ann, workspace, board, list };
}

describe("while PocketBase runs", () => {
  let pb, ann, workspace, board;
  before(async () => {
    pb = await PocketBase.start({ application: KANBAN });
    ({ ann, workspace, board } = await team(pb));
  });
  after(() => pb.stop());

  const change = async (name, edit) => {
    const { body } = await pb.call("GET", `/api/collections/${name}`, undefined, pb.root);
    const answer = await pb.call("PATCH", `/api/collections/${name}`, edit(body), pb.root);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
  };
  const rename =
    (from, to) =>
    ({ fields }) => ({ fields: fields.map((f) => (f.name === from ? { ...f, name: to } : f)) });
  /** The channels and collections of a write's events. */
  const told = async (write) => {
    const { last } = await pb.events();
    await write();
    return (await pb.events(last)).events
      .filter(({ data }) => data)
      .map(({ channels, data }) => [channels, data.collection]);
  };
  const may = async (...channels) => {
    const checks = channels.map((channel) => ({ user: ann.id, channel }));
    return (await pb.gateway("POST", "/api/gateway/authorize", { checks })).body.results;
  };
  const labels =
    (data, name = "labels") =>
    () =>
      pb.create(name, { board: board.id, ...data });

  test("a renamed field of a template is followed", async () => {
    await change("labels", rename("board", "panel"));
    assert.deepEqual(await told(() => pb.create("labels", { panel: board.id })), [[[`board:${board.id}`], "labels"]]);
    await change("labels", rename("panel", "board"));
    assert.deepEqual((await pb.events()).problems, []);
  });

  test("a renamed collection is followed, and called by its new name", async () => {
    await change("labels", () => ({ name: "tags" }));
    assert.deepEqual(await told(labels({}, "tags")), [[[`board:${board.id}`], "tags"]]);
    await change("tags", () => ({ name: "labels" }));
    assert.deepEqual(await told(labels({})), [[[`board:${board.id}`], "labels"]]);
  });

  test("a renamed guard is followed, for everything that depends on it", async () => {
    await change("boards", () => ({ name: "panels" }));
    assert.deepEqual(await may(`board:${board.id}`, `workspace:${workspace.id}`), ["allowed", "allowed"]);
    assert.deepEqual(await told(labels({})), [[[`board:${board.id}`], "labels"]]);
    const { last } = await pb.events();
    await pb.update("panels", board.id, { title: "renamed" });
    const [event] = (await pb.events(last)).events;
    assert.deepEqual(event.updates.channels, ["board-updates"]);
    assert.deepEqual(
      (await pb.gateway("POST", "/api/gateway/visible", { channel: "board-updates", user: ann.id, after: "", rows: 9 }))
        .status,
      200,
    );
    await change("panels", () => ({ name: "boards" }));
  });

  test("renamed users are followed", async () => {
    await change("members", () => ({ name: "people" }));
    assert.deepEqual(await may(`board:${board.id}`), ["allowed"]);
    await change("people", () => ({ name: "members" }));
  });

  test("a deleted field is reported, and other collections continue", async () => {
    await change("tickets", ({ fields }) => ({
      viewRule: "",
      listRule: "",
      fields: fields.filter(({ name }) => name !== "owner"),
    }));
    const { problems } = await pb.events();
    assert.deepEqual(problems, [`relay.tickets, "crew:{owner}": the field "owner" of "tickets" is gone`]);
    assert.deepEqual(await told(labels({})), [[[`board:${board.id}`], "labels"]]);
  });

  test("a deleted guard closes its channels, and no others", async () => {
    assert.equal((await pb.call("DELETE", "/api/collections/notices", undefined, pb.root)).status, 204);
    const { problems } = await pb.events();
    assert.ok(problems.includes(`channels.notice: the collection "notices" is gone`), problems.join("\n"));
    assert.deepEqual(await may("notice:x", `board:${board.id}`), ["unknown", "allowed"]);
    const { status, body } = await pb.gateway("POST", "/api/gateway/visible", {
      channel: "board-updates",
      user: ann.id,
      after: "",
      rows: 9,
    });
    assert.equal(status, 200, JSON.stringify(body));
  });

  test("records that a channel's subscribers may no longer view are no longer relayed", async () => {
    const { id: staff } = (await pb.call("GET", "/api/collections/staff", undefined, pb.root)).body;
    await change("tickets", ({ fields }) => ({
      fields: [...fields, { type: "relation", name: "owner", collectionId: staff, maxSelect: 1 }],
    }));
    await change("tickets", () => ({ viewRule: "owner = @request.auth.id", listRule: null }));
    assert.ok(!(await pb.events()).problems.some((problem) => problem.includes("relay.tickets")));
    const data = { email: "sam@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
    const sam = await pb.create("staff", data);
    const write = () => pb.create("tickets", { owner: sam.id });
    assert.deepEqual(await told(write), [[[`crew:${sam.id}`], "tickets"]]);
    await change("tickets", () => ({ viewRule: `owner = @request.auth.id && subject = "told"` }));
    assert.deepEqual(await told(write), []);
    const { problems } = await pb.events();
    assert.ok(
      problems.some((problem) =>
        problem.includes(`relay.tickets, "crew:{owner}": nothing is relayed to this channel now`),
      ),
      problems.join("\n"),
    );
  });
});

test("rules changed by another process apply before the next event", async () => {
  const pb = await PocketBase.start({ application: KANBAN });
  try {
    const { ann, board } = await team(pb);
    const rule = `migrate((app) => { const b = app.findCollectionByNameOrId("boards"); b.viewRule = 'title ~ "open"'; app.save(b); });`;
    writeFileSync(path.join(pb.folder, "pb_migrations/1900000000_rule.js"), rule);
    const { last } = await pb.events();
    const { status, output } = run(pb.folder, ["migrate", "up"]);
    assert.equal(status, 0, output);
    // From here on, PocketBase itself applies the new rule.
    await until(
      async () => (await pb.call("GET", `/api/collections/boards/records/${board.id}`, undefined, ann)).status === 404,
      "the new rule",
    );
    await pb.update("boards", board.id, { title: "closed" });
    const access = (await pb.events(last)).events.flatMap(({ access }) => access ?? []);
    assert.deepEqual(access[0], { cause: "rules" });
    const closed = { cause: "record", channel: `board:${board.id}` };
    assert.ok(
      access.some((change) => JSON.stringify(change) === JSON.stringify(closed)),
      `the title decides now: ${JSON.stringify(access)}`,
    );
  } finally {
    await pb.stop();
  }
});

describe("a command beside a running PocketBase", () => {
  const mistakes = [
    [
      "does not fit the schema",
      edit(CONFIG, "{board}", "{bord}"),
      /has no field "bord".*[\s\S]*uses the config of PocketBase's last/,
    ],
    [
      "is broken",
      edit(CONFIG, "module.exports = {", "module.exports = {{"),
      /not valid JavaScript[\s\S]*config before this change/,
    ],
  ];
  for (const [what, spoil, says] of mistakes) {
    test(`relays its writes by the config of the last start if the file ${what}`, async () => {
      const pb = await PocketBase.start({ application: KANBAN, arguments: ["--hooksWatch=false"] });
      try {
        const { board } = await team(pb);
        const { last } = await pb.events();
        spoil(pb.folder);
        const seed = `migrate((app) => {
          app.save(new Record(app.findCollectionByNameOrId("lists"), { board: "${board.id}", title: "Seed" }));
        });`;
        writeFileSync(path.join(pb.folder, "pb_migrations/1900000000_seed.js"), seed);
        const { status, output } = run(pb.folder, ["migrate", "up"]);
        assert.equal(status, 0, output);
        assert.match(output, says);
        const events = (await pb.events(last)).events.filter(({ data }) => data?.collection === "lists");
        assert.deepEqual(
          events.map(({ channels }) => channels),
          [[`board:${board.id}`]],
        );
      } finally {
        await pb.stop();
      }
    });
  }

  test("prints nothing about a config whose collections the first migrations make", () => {
    const { status, output } = run(install(undefined, KANBAN), ["migrate", "up"]);
    assert.equal(status, 0, output);
    assert.ok(!output.includes("gateway:"), output);
  });
});

test("PocketBase's rate limits leave the gateway alone", async () => {
  const pb = await PocketBase.start({ application: KANBAN });
  try {
    const rules = [{ label: "/api/", maxRequests: 5, duration: 60 }];
    const answer = await pb.call("PATCH", "/api/settings", { rateLimits: { enabled: true, rules } }, pb.root);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    const others = await Promise.all(Array.from({ length: 10 }, () => pb.call("GET", "/api/health")));
    assert.ok(
      others.some(({ status }) => status === 429),
      "the limits are on",
    );
    for (let i = 0; i < 20; i++) {
      assert.equal((await pb.gateway("GET", `/api/gateway/events?after=0&limit=${i + 1}`)).status, 200);
    }
  } finally {
    await pb.stop();
  }
});

describe("broken while PocketBase runs", () => {
  const BROKEN = ["module.exports = {", "module.exports = {{"];

  test("does not affect engines started later", async () => {
    const pb = await PocketBase.start({ application: KANBAN, arguments: ["--hooksWatch=false"] });
    try {
      const { board } = await team(pb);
      edit(CONFIG, ...BROKEN)(pb.folder);
      const { last } = await pb.events();
      // More creates at once than there are engines.
      await Promise.all(Array.from({ length: 60 }, () => pb.create("labels", { board: board.id })));
      assert.equal((await pb.events(last)).last, last + 60);
    } finally {
      await pb.stop();
    }
  });

  test("leaves the last valid config in force where the mistake shows against the schema only, and adopts the right file", async () => {
    const pb = await PocketBase.start({ application: KANBAN });
    try {
      const { board } = await team(pb);
      const file = path.join(pb.folder, CONFIG);
      const good = readFileSync(file, "utf8");
      const restart = async (text) => {
        const { boot } = await pb.events();
        writeFileSync(file, text);
        const now = async () => (await pb.events().catch(() => ({}))).boot;
        await until(async () => ![undefined, boot].includes(await now()), "PocketBase to restart itself", 30_000);
      };
      const isDelivered = async (what) => {
        const { last } = await pb.events();
        // At once, so that many JavaScript engines work.
        await Promise.all(Array.from({ length: 20 }, () => pb.create("labels", { board: board.id })));
        const { events } = await pb.events(last);
        const channels = events.flatMap((event) => event.channels);
        assert.deepEqual(channels, Array(20).fill(`board:${board.id}`), what);
      };
      for (const [from, to, says] of [
        ["labels: {", "lables: {", `relay.lables: there is no collection "lables"`],
        [
          `board: { guard: "boards" }`,
          `board: { guard: "bords" }`,
          `channels.board.guard: there is no collection "bords"`,
        ],
        [
          `labels: { to: ["board:{board}"]`,
          `labels: { to: ["board:{bord}"]`,
          `the collection "labels" has no field "bord"`,
        ],
        [
          `labels: { to: ["board:{board}"], trusted: true }`,
          `labels: ["workspace:{board}"]`,
          `the viewRule of "labels"`,
        ],
        [
          `users: ["members", "staff", "_superusers"]`,
          `users: ["membrs", "staff", "_superusers"]`,
          `users[0]: there is no collection "membrs"`,
        ],
      ]) {
        const broken = good.replaceAll(from, to);
        assert.notEqual(broken, good, from);
        await restart(broken);
        assert.ok(pb.output.includes(says), pb.output);
        const { problems } = await pb.events();
        assert.equal(problems.length, 1, problems.join("\n"));
        assert.ok(problems[0].includes(says) && problems[0].includes("stays in force"), problems[0]);
        await isDelivered(says);
      }
      await restart(good.replace(`labels: { to: ["board:{board}"], trusted: true },`, ""));
      assert.deepEqual((await pb.events()).problems, []);
      const { last } = await pb.events();
      await pb.create("labels", { board: board.id });
      assert.equal((await pb.events(last)).last, last, "the right file is in force");
    } finally {
      await pb.stop();
    }
  });

  test("leaves a renamed collection in force when PocketBase restarts itself", async () => {
    const pb = await PocketBase.start({ application: KANBAN });
    try {
      const { board } = await team(pb);
      assert.equal((await pb.call("PATCH", "/api/collections/labels", { name: "tags" }, pb.root)).status, 200);
      const { boot, last } = await pb.events();
      writeFileSync(path.join(pb.folder, "pb_hooks/other.pb.js"), "// any other file");
      const now = async () => (await pb.events().catch(() => ({}))).boot;
      await until(async () => ![undefined, boot].includes(await now()), "PocketBase to restart itself", 30_000);
      await pb.create("tags", { board: board.id });
      assert.equal((await pb.events(last)).events.at(-1).channels[0], `board:${board.id}`);
      const { problems } = await pb.events();
      assert.match(problems.join("\n"), /relay\.labels: there is no collection "labels"/);
    } finally {
      await pb.stop();
    }
  });

  test("leaves the last valid config in force when PocketBase restarts itself, and is refused at the next start", async () => {
    const pb = await PocketBase.start({ application: KANBAN });
    const { board } = await team(pb);
    const { boot, last } = await pb.events();
    edit(CONFIG, ...BROKEN)(pb.folder);
    const restarted = async () => (await pb.events().catch(() => ({}))).boot;
    await until(async () => ![undefined, boot].includes(await restarted()), "PocketBase to restart itself", 15_000);
    assert.match(pb.output, /gateway: gateway\.config\.js is not valid JavaScript: SyntaxError/);
    assert.match(pb.output, /the config before this change stays in force/);
    await pb.create("labels", { board: board.id });
    assert.equal((await pb.events(last)).events.at(-1).channels[0], `board:${board.id}`);
    await pb.stop({ keep: true });
    const { status, output } = run(pb.folder, ["serve", "--http", "127.0.0.1:0"]);
    assert.equal(status, 1, output);
  });
});
