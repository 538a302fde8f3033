// The check of gateway.config.js without a schema (pb_hooks/gateway/config.js): refused files and their messages.

import assert from "node:assert/strict";
import test, { describe } from "node:test";
import { load } from "./modules.mjs";

const { checked } = load("config");

describe("gateway.config.js", () => {
  const good = () => ({
    users: "users",
    channels: { room: { guard: "rooms" }, user: { own: true }, status: { guard: "users" } },
    updates: { "room-updates": "room" },
    relay: { messages: ["room:{room}"] },
  });
  const bad = [
    ["a section in another spelling", { chanels: {} }, `chanels: is not a setting; did you mean "channels"?`],
    ["a section in another letter case", { Relay: {} }, `Relay: is not a setting; did you mean "relay"?`],
    ["no users", { users: undefined }, `users: is missing; name the auth collection, as in users: "users"`],
    ["users in a list without an entry", { users: [] }, "users: names no auth collection"],
    [
      "a user setting in another spelling",
      { users: { collection: "users", banned_until: "x" } },
      `users.banned_until: is not a setting; did you mean "bannedUntil"?`,
    ],
    ["one collection twice", { users: ["users", "users"] }, `users: names "users" twice`],
    ["guests that are neither", { guests: "yes" }, `guests: "yes" is neither true nor false`],
    [
      "a kind of channel with a blank",
      { channels: { "my room": { guard: "rooms" } } },
      "channels.my room: is not a channel's kind",
    ],
    [
      "a kind of channel with a colon",
      { channels: { "a:b": { guard: "rooms" } } },
      "channels.a:b: is not a channel's kind",
    ],
    [
      "a kind of channel like the gateway's own",
      { channels: { $access: { guard: "rooms" } } },
      "channels.$access: is not a channel's kind",
    ],
    ["a guard that is an object", { channels: { room: { guard: {} } } }, "channels.room.guard: {} is not a name"],
    ["neither guard nor own", { channels: { room: {} } }, "channels.room: needs either a guard"],
    [
      "both guard and own",
      { channels: { room: { guard: "rooms", own: true } } },
      "channels.room: needs either a guard",
    ],
    [
      "a status of one's own",
      { channels: { status: { own: true } } },
      'channels.status: "status" carries online statuses',
    ],
    [
      "perUser as a text",
      { channels: { room: { guard: "rooms", perUser: "user" } } },
      "channels.room.perUser: is not an object",
    ],
    [
      "a text in place of a list",
      { relay: { messages: "room:{room}" } },
      `relay.messages: a list of channels is needed, as in ["room:{id}"]; this is "room:{room}"`,
    ],
    ["a template without a field", { relay: { messages: ["room:all"] } }, "is not a channel template"],
    ["a template with a blank", { relay: { messages: ["room: {room}"] } }, "is not a channel template"],
    [
      "a template without a kind",
      { relay: { messages: ["{room}"] } },
      `names no kind of channel before a colon; it should look like "room:{id}"`,
    ],
    ["a slash in place of the colon", { relay: { messages: ["room/{room}"] } }, `it should look like "room:{id}"`],
    [
      "text before the braces",
      { relay: { messages: ["room:a{room}"] } },
      `relay.messages, "room:a{room}": has other text around the braces, so its channels are those of other ids; it should look like "room:{room}"`,
    ],
    ["text after the braces", { relay: { messages: ["room:{room}:messages"] } }, `it should look like "room:{room}"`],
    [
      "a dollar sign before the braces",
      { relay: { messages: ["room:${message.room}"] } },
      `it should look like "room:{message.room}"`,
    ],
    [
      "text before the braces of a personal channel",
      { relay: { notes: ["user:x{author}"] } },
      `it should look like "user:{author}"`,
    ],
    [
      "text after the braces of a personal channel",
      { relay: { notes: ["user:{author}x"] } },
      `it should look like "user:{author}"`,
    ],
    [
      "a template for a kind that is not there",
      { relay: { messages: ["rom:{room}"] } },
      `there is no channel "rom"; did you mean "room"?`,
    ],
    [
      "a template like an object's own property",
      { relay: { messages: ["constructor:{room}"] } },
      `there is no channel "constructor"`,
    ],
    ["a template for statuses", { relay: { users: ["status:{id}"] } }, "nothing can be relayed there"],
    [
      "trust in a text",
      { relay: { messages: { to: ["room:{room}"], trusted: "yes" } } },
      `relay.messages.trusted: "yes" is neither true nor false`,
    ],
    [
      "updates of a kind that is not there",
      { updates: { "room-updates": "rooms" } },
      `updates.room-updates: there is no channel "rooms"; did you mean "room"?`,
    ],
    ["updates of own channels", { updates: { all: "user" } }, `updates.all: "user" has no guard`],
    ["updates with a colon", { updates: { "a:b": "room" } }, "updates.a:b: is not the name of a channel"],
    ["no time to keep", { outbox: { keepSeconds: 0 } }, "outbox.keepSeconds: 0 is not a whole number above 0"],
    ["half a batch", { delivery: { batch: 0.5 } }, "delivery.batch: 0.5 is not a whole number above 0"],
    ["a delivery setting in another spelling", { delivery: { timeout: 1 } }, `delivery.timeout: is not a setting`],
  ];
  for (const [what, change, says] of bad) {
    test(`is refused with ${what}`, () => {
      const config = { ...good(), ...change };
      assert.throws(
        () => checked(config),
        (error) => {
          assert.ok(error.message.startsWith("gateway.config.js: ") && error.message.includes(says), error.message);
          return true;
        },
      );
    });
  }

  test("is refused without settings", () => {
    assert.throws(() => checked({}), /module\.exports: is missing or empty/);
  });

  test("may have text around the braces of a trusted template", () => {
    const { relay } = checked({ ...good(), relay: { messages: { to: ["room:{room}/pinned"], trusted: true } } });
    assert.deepEqual(
      relay.messages.to.map(({ before, path, after }) => [before, path, after]),
      [["room:", ["room"], "/pinned"]],
    );
  });

  test("outbox and delivery have defaults", () => {
    const { outbox, delivery } = checked(good());
    assert.deepEqual(outbox, { keepSeconds: 600, maxEventBytes: 256 * 1024 });
    assert.deepEqual(delivery, { timeoutSeconds: 1, firstPauseSeconds: 1, lastPauseSeconds: 30, batch: 100 });
  });
});
