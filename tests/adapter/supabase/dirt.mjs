// Rows, answers and failures of the old backend beyond the contract.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Storage, collector, until } from "../stage.mjs";
import { CUT, PASSWORD } from "./stage.mjs";

const contents = ({ messages }) => messages.map(({ content }) => content);

export function dirt(start, refused) {
  describe("SupabaseAdapter with rows and answers of every age", () => {
    let backend, anna, boris, room;
    before(async () => {
      backend = await start();
      [anna, boris] = [await backend.user("anna"), await backend.user("boris")];
      ({ room } = await anna.adapter.createRoom("Plans", "private", [boris.id]));
    });
    after(() => backend?.stop());

    test("muting is written as mute_until and read as muted_until", async () => {
      const until = new Date(Date.now() + 3_600_000).toISOString();
      for (const field of ["mute_until", "muted_until"]) {
        const other = await backend.user("other");
        await backend.change(`user:${other.id}`, { muted: true, [field]: until });
        const { user } = await anna.adapter.getUserById(other.id);
        assert.deepEqual([user.muted, user.mute_until], [true, until]);
      }
      const past = await backend.user("past");
      await backend.change(`user:${past.id}`, {
        muted: true,
        mute_until: "2020-01-01T00:00:00.000Z",
        banned: true,
        ban_until: "2020-01-01T00:00:00.000Z",
      });
      const { user } = await anna.adapter.getUserById(past.id);
      assert.deepEqual([user.muted, user.banned], [undefined, undefined]);
    });

    test("rows without fields, and with fields of wrong types, are shown", async () => {
      const bare = {
        id: "bare-room",
        name: "Bare",
        members: [anna.id],
        unread_count: "many",
        pinned_message_ids: null,
        created_by: "system",
      };
      await backend.database.set("room:bare-room", bare);
      await backend.database.set("message:bare", {
        id: "bare",
        room_id: "bare-room",
        sender_id: "gone",
        content: "old",
        reactions: ["👍"],
      });
      await backend.database.set("room_messages:bare-room", ["bare", "bare"]);
      const { room: shown } = await anna.adapter.getRoom("bare-room");
      assert.deepEqual(
        [
          shown.type,
          shown.created_by,
          shown.my_role,
          shown.unread_count,
          shown.pinned_message_ids,
          shown.last_activity,
        ],
        ["private", "system", "member", { [anna.id]: 0 }, [], ""],
      );
      const { messages, cursor } = await anna.adapter.getMessages("bare-room", 10);
      assert.deepEqual(
        messages.map(({ id, type, sender_username }) => [id, type, sender_username]),
        [["bare", "text", ""]],
      );
      assert.equal(cursor, null);
      // The backend answers with an empty list as soon as the index has an id without a row.
      await backend.database.set("room_messages:bare-room", ["bare", "lost"]);
      assert.deepEqual(contents(await anna.adapter.getMessages("bare-room", 10)), []);
      assert.deepEqual(
        (await anna.adapter.getMembers("bare-room")).members.map(({ user }) => user.id),
        [anna.id],
      );
    });

    test("an index that has lost ids still gives pages, also between deleted messages", async () => {
      const { room: long } = await anna.adapter.createRoom("Long", "private");
      const ids = [];
      for (let i = 0; i < 12; i++) ids.push((await anna.adapter.sendMessage(long.id, `n${i}`)).message.id);
      await backend.database.set(
        `room_messages:${long.id}`,
        ids.filter((_, i) => i !== 3),
      );
      for (const i of [5, 6, 7, 8, 9, 10]) await anna.adapter.deleteMessage(ids[i]);
      const seen = [];
      let cursor;
      do {
        const page = await anna.adapter.getMessages(long.id, { limit: 2, ...(cursor ? { before: cursor } : {}) });
        seen.unshift(...contents(page));
        cursor = page.cursor;
      } while (cursor);
      assert.deepEqual(seen, ["n0", "n1", "n2", "n4", "n11"]);
    });

    test("a direct conversation with a deleted account is not listed, and breaks nothing", async () => {
      const other = await backend.user("other");
      const { dm } = await anna.adapter.createDirectMessage(other.id);
      await backend.change(`user:${other.id}`, { deleted: true });
      const fresh = backend.adapter();
      await fresh.signin(anna.email, PASSWORD);
      assert.ok(!(await fresh.getDirectMessages()).dms.some(({ id }) => id === dm.id));
      assert.ok((await fresh.getRooms()).rooms.some(({ id }) => id === room.id));
    });

    test("a message whose answer was lost is stored once", async () => {
      let cuts = 1;
      backend.intercept = async ({ method, path, bytes }) => {
        if (method !== "POST" || path !== "/messages" || cuts === 0) return null;
        cuts -= 1;
        const token = await tokenOf(backend, anna);
        await backend.edge.answer({ method, path, query: new URLSearchParams(), body: JSON.parse(bytes), token });
        throw CUT;
      };
      const { message } = await anna.adapter.sendMessage(room.id, "only once");
      assert.equal(message.state, "pending");
      await until(() => anna.adapter.getPendingMessages().length === 0, "the outbox to empty", 20_000);
      backend.intercept = null;
      assert.equal(cuts, 0);
      assert.equal(
        contents(await boris.adapter.getMessages(room.id, 50)).filter((content) => content === "only once").length,
        1,
      );
    });

    test("a message waits while the backend is away, and is sent when it is back", async () => {
      backend.intercept = async () => ({ status: 503, body: { error: "unavailable" } });
      const { message } = await anna.adapter.sendMessage(room.id, "patience");
      assert.equal(message.state, "pending");
      backend.intercept = null;
      await until(
        async () => contents(await boris.adapter.getMessages(room.id, 50)).includes("patience"),
        "the message",
        20_000,
      );
    });

    test("reading is repeated after a failure of the gateway", async () => {
      let failures = 1;
      backend.intercept = async () => (failures-- > 0 ? { status: 502, body: undefined } : null);
      assert.ok((await anna.adapter.getRooms()).rooms.length > 0);
      backend.intercept = null;
    });

    test("an expired token is renewed, by one request; a refused renewal ends the login", async () => {
      const storage = new Storage();
      const user = await backend.user("renew", { storage });
      const claims = { sub: user.id, role: "authenticated", exp: Math.floor(Date.now() / 1000) - 60 };
      storage.setItem("access_token", backend.database.sign(claims));
      let renewals = 0;
      backend.intercept = async ({ path }) => void (path === "/auth/refresh" && renewals++);
      await Promise.all([user.adapter.getRooms(), user.adapter.getNotifications(), user.adapter.getFriends()]);
      backend.intercept = null;
      assert.equal(renewals, 1);
      const changes = collector();
      user.adapter.onAuthChange(changes);
      storage.setItem("access_token", backend.database.sign(claims));
      storage.setItem("refresh_token", "used");
      await assert.rejects(user.adapter.getRooms(), refused("unauthorized"));
      assert.deepEqual(
        [changes.seen, user.adapter.currentUserId(), storage.getItem("access_token")],
        [[null], null, null],
      );
    });

    test("the end of the login ends the polls", async () => {
      const storage = new Storage();
      const user = await backend.user("ended", { storage });
      const errors = collector();
      const end = user.adapter.subscribeToRoomUpdates(() => {}, { onError: errors });
      await until(() => user.adapter.connectionState().state === "connected", "the first poll", 20_000);
      storage.setItem("refresh_token", "used");
      await backend.change(`user:${user.id}`, { deleted: true });
      await until(() => ["closed", "idle"].includes(user.adapter.connectionState().state), "the end", 20_000);
      assert.equal(user.adapter.currentUserId(), null);
      end();
    });

    test("an edge function without a route is named as the reason", async () => {
      backend.intercept = async ({ path }) => (path === "/polls" ? { status: 404, body: undefined } : null);
      await assert.rejects(anna.adapter.createPoll(room.id, "When?", ["a", "b"]), (error) => {
        assert.deepEqual([error.code, error.method], ["unsupported", "/polls"]);
        assert.match(error.action, /VITE_SUPABASE_FUNCTION/);
        return true;
      });
      backend.intercept = null;
    });

    test("a public room that was left is not joined again by its subscription", async () => {
      const admin = await backend.user("admin");
      await backend.promote(admin.id, "admin");
      const { room: hall } = await admin.adapter.createRoom("Hall", "public");
      await boris.adapter.joinRoom(hall.id);
      const [seen, ready, closed] = [collector(), collector(), collector()];
      const end = boris.adapter.subscribeToRoom(hall.id, seen, { onReady: () => ready(true), onClosed: closed });
      await ready.until(Boolean, "the subscription");
      await boris.adapter.leaveRoom(hall.id);
      assert.equal(closed.seen[0].code, 2100);
      let polls = 0;
      backend.intercept = async ({ path }) => void (path === "/rooms" && polls++);
      const hold = boris.adapter.subscribeToRoomUpdates(() => {});
      await until(() => polls >= 4, "some polls", 20_000);
      backend.intercept = null;
      assert.ok(!(await backend.database.get(`room:${hall.id}`)).members.includes(boris.id));
      await boris.adapter.joinRoom(hall.id);
      await until(() => ready.seen.length > 1, "the subscription to go on", 20_000);
      end();
      hold();
    });

    test("a direct conversation is a room for all methods, or says that it is not", async () => {
      const { dm } = await anna.adapter.createDirectMessage(boris.id);
      const [seen, ready] = [collector(), collector()];
      const end = boris.adapter.subscribeToRoom(dm.id, seen, { onReady: () => ready(true) });
      await ready.until(Boolean, "the subscription");
      const { message: sent } = await anna.adapter.sendMessage(dm.id, "hello", "text");
      await seen.until(({ id }) => id === sent.id, "the message");
      await boris.adapter.markAsRead(dm.id);
      const { room: shown } = await boris.adapter.getRoom(dm.id);
      assert.deepEqual([shown.type, shown.name, shown.unread_count], ["dm", anna.username, { [boris.id]: 0 }]);
      await assert.rejects(anna.adapter.pinMessage(dm.id, sent.id), refused("unsupported"));
      await assert.rejects(anna.adapter.leaveRoom(dm.id), refused("unsupported"));
      await assert.rejects(anna.adapter.createPoll(dm.id, "When?", ["a", "b"]), refused("unsupported"));
      end();
    });

    test("members, pins and read marks of a subscribed room are told", async () => {
      const { room: hall } = await anna.adapter.createRoom("Hall", "private");
      const [members, rooms, ready] = [collector(), collector(), collector()];
      const end = anna.adapter.subscribeToRoom(hall.id, () => {}, {
        onMember: members,
        onRoom: rooms,
        onReady: () => ready(true),
      });
      await ready.until(Boolean, "the subscription");
      const listed = collector();
      const hold = anna.adapter.subscribeToRoomUpdates(listed);
      await listed.until((list) => list.some(({ id }) => id === hall.id), "the list");
      await anna.adapter.inviteToRoom(hall.id, boris.id);
      await members.until(({ action, userId }) => action === "create" && userId === boris.id, "the invitation");
      await boris.adapter.markAsRead(hall.id);
      await members.until(({ action, last_read }) => action === "update" && last_read, "the read mark");
      await backend.change(`room:${hall.id}`, { pinned_message_id: "m1", pinned_message_ids: ["m1"] });
      assert.deepEqual((await rooms.until(Boolean, "the pin")).pinned_message_ids, ["m1"]);
      await boris.adapter.leaveRoom(hall.id);
      await members.until(({ action, userId }) => action === "delete" && userId === boris.id, "the leave");
      end();
      hold();
    });
  });
}

async function tokenOf(backend, { email }) {
  return (await backend.auth.password(email, PASSWORD)).access_token;
}
