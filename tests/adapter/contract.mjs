// Tests of the contract in interface.ts: every method once as an entitled user, and once as a user without the right. The
// suite runs with any adapter; `backend` creates users and grants roles.
//
//   backend.user(prefix): {adapter, id, email, username} of a new user, logged in on a separate device
//   backend.adapter(): an adapter without a login
//   backend.promote(userId, role): grants a role, as an operator does
//   backend.password: the password of every user
//   backend.favorites, backend.friendRequest: texts of the backend; undefined: the English defaults of the chat
//
// `differences`: tests in place of the tests with the same title, for a backend that keeps less of the contract and
// mostly answers with a typed error.

import assert from "node:assert/strict";
import { after, before, describe, test as nodeTest } from "node:test";
import { collector, until } from "./stage.mjs";

export const refused =
  (...codes) =>
  (error) => {
    assert.ok(codes.includes(error.code), `expected ${codes.join(" or ")}, got ${error.code}: ${error.message}`);
    assert.equal(typeof error.action, "string");
    assert.ok(error.action.length > 0, "an error says what to do");
    return true;
  };
const file = (content, name, type) => new File([content], name, { type });
const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
  "base64",
);
const get = async (url) => {
  const reply = await fetch(url);
  return { status: reply.status, bytes: Buffer.from(await reply.arrayBuffer()) };
};

export function contract(name, start, differences = {}) {
  describe(`${name} keeps the contract`, () => {
    let backend, anna, boris, vera, guest, room, message;
    const unused = new Set(Object.keys(differences));
    const test = (title, body) => {
      const instead = differences[title];
      unused.delete(title);
      nodeTest(
        instead ? `differs: ${title}` : title,
        instead ? () => instead({ backend, anna, boris, vera, guest, room, message }) : body,
      );
    };

    before(async () => {
      backend = await start();
      [anna, boris, vera] = await Promise.all(["anna", "boris", "vera"].map((prefix) => backend.user(prefix)));
      guest = backend.adapter();
      ({ room } = await anna.adapter.createRoom("Plans", "private", [boris.id]));
      ({ message } = await anna.adapter.sendMessage(room.id, "first", "text"));
    });
    after(() => backend?.stop());

    describe("authentication", () => {
      test("signup makes an account and logs in", async () => {
        const user = await backend.user("new");
        assert.equal(user.adapter.currentUserId(), user.id);
        const { user: me } = await user.adapter.getMe();
        assert.deepEqual([me.username, me.email, me.role, me.friends], [user.username, user.email, "user", []]);
      });
      test("signup refuses a username in use, in other letters too, and a short password", async () => {
        const taken = anna.username.toUpperCase();
        await assert.rejects(guest.signup("x1@example.com", backend.password, taken), refused("conflict"));
        await assert.rejects(guest.signup("x2@example.com", "short", "someone_else"), refused("invalid"));
        await assert.rejects(guest.signup(anna.email, backend.password, "someone_else"), refused("conflict"));
      });
      test("signin ignores the case of the address", async () => {
        const other = backend.adapter();
        const { user, access_token } = await other.signin(` ${anna.email.toUpperCase()} `, backend.password);
        assert.equal(user.id, anna.id);
        assert.equal(typeof access_token, "string");
      });
      test("signin refuses a wrong password", async () => {
        await assert.rejects(guest.signin(anna.email, "wrong-password"), refused("unauthorized"));
        assert.equal(guest.currentUserId(), null);
      });
      test("signout ends the login, and tells", async () => {
        const { adapter, id } = await backend.user("leaver");
        const changes = collector();
        adapter.onAuthChange(changes);
        await adapter.signout();
        assert.deepEqual(changes.seen, [null]);
        assert.equal(adapter.currentUserId(), null);
        assert.ok(id);
      });
      test("signout leaves nothing that may be called", async () => {
        const { adapter } = await backend.user("leaver");
        await adapter.signout();
        await assert.rejects(adapter.getRooms(), refused("unauthorized"));
      });
      test("getMe", async () => assert.equal((await anna.adapter.getMe()).user.id, anna.id));
      test("getMe refuses a guest", () => assert.rejects(guest.getMe(), refused("unauthorized")));
      test("refreshToken", async () => {
        const { access_token } = await anna.adapter.refreshToken("");
        assert.ok(access_token.split(".").length === 3);
      });
      test("refreshToken refuses a guest", () => assert.rejects(guest.refreshToken(), refused("unauthorized")));
    });

    describe("users", () => {
      test("searchUsers finds parts of names, Russian ones in any case", async () => {
        await vera.adapter.updateUserProfile({ display_name: "Вера Павловна" });
        const { users } = await anna.adapter.searchUsers("вера");
        assert.deepEqual(
          users.map(({ id }) => id),
          [vera.id],
        );
        const byName = await anna.adapter.searchUsers(boris.username.slice(0, 5).toUpperCase());
        assert.ok(byName.users.some(({ id }) => id === boris.id));
        assert.equal(byName.users[0].email, "", "another user's address is private");
      });
      test("searchUsers refuses a guest", () => assert.rejects(guest.searchUsers("a"), refused("unauthorized")));
      test("getUserById", async () => {
        const { user } = await anna.adapter.getUserById(boris.id);
        assert.equal(user.username, boris.username);
      });
      test("getUserById knows no stranger", () =>
        assert.rejects(anna.adapter.getUserById("nobody000000000"), refused("not_found")));
      test("updateUserProfile", async () => {
        const { user } = await anna.adapter.updateUserProfile({ display_name: "Anna", status_text: "busy" });
        assert.deepEqual([user.display_name, user.status_text], ["Anna", "busy"]);
      });
      test("updateUserProfile refuses a username in use", () =>
        assert.rejects(anna.adapter.updateUserProfile({ username: boris.username }), refused("conflict")));
      test("updateUserRole by an admin", async () => {
        const [admin, other] = [await backend.user("admin"), await backend.user("other")];
        await backend.promote(admin.id, "admin");
        const { user } = await admin.adapter.updateUserRole(other.id, "vip");
        assert.equal(user.role, "vip");
        await assert.rejects(admin.adapter.updateUserRole(admin.id, "user"), refused("forbidden"));
      });
      test("updateUserRole refuses others", () =>
        assert.rejects(anna.adapter.updateUserRole(anna.id, "admin"), refused("forbidden")));
      test("banUser and unbanUser by a moderator", async () => {
        const [staff, other] = [await backend.user("staff"), await backend.user("other")];
        await backend.promote(staff.id, "moderator");
        await staff.adapter.banUser(other.id, 2);
        const { user } = await staff.adapter.getUserById(other.id);
        assert.equal(user.banned, true);
        assert.ok(Math.abs(Date.parse(user.ban_until) - Date.now() - 7_200_000) < 600_000);
        await assert.rejects(other.adapter.getRooms(), refused("banned"));
        await assert.rejects(backend.adapter().signin(other.email, backend.password), refused("banned"));
        await staff.adapter.banUser(other.id);
        const { user: forEver } = await staff.adapter.getUserById(other.id);
        assert.deepEqual([forEver.banned, forEver.ban_until], [true, undefined]);
        await staff.adapter.unbanUser(other.id);
        assert.equal((await backend.adapter().signin(other.email, backend.password)).user.id, other.id);
      });
      test("banUser and unbanUser refuse users, and ranks above", async () => {
        await assert.rejects(anna.adapter.banUser(boris.id, 1), refused("forbidden"));
        await assert.rejects(anna.adapter.unbanUser(boris.id), refused("forbidden"));
        const [staff, admin] = [await backend.user("staff"), await backend.user("admin")];
        await backend.promote(staff.id, "moderator");
        await backend.promote(admin.id, "admin");
        await assert.rejects(staff.adapter.banUser(admin.id, 1), refused("forbidden"));
        await assert.rejects(staff.adapter.banUser(boris.id, -1), refused("invalid"));
      });
      test("muteUser and unmuteUser by a moderator", async () => {
        const [staff, other] = [await backend.user("staff"), await backend.user("other")];
        await backend.promote(staff.id, "moderator");
        const { room: hall } = await other.adapter.createRoom("Hall", "public");
        await staff.adapter.muteUser(other.id, 1);
        await assert.rejects(other.adapter.sendMessage(hall.id, "hm"), refused("muted"));
        for (const { id } of other.adapter.getPendingMessages()) other.adapter.discardMessage(id);
        await staff.adapter.unmuteUser(other.id);
        assert.equal((await other.adapter.sendMessage(hall.id, "again")).message.content, "again");
      });
      test("muteUser and unmuteUser refuse users", async () => {
        await assert.rejects(anna.adapter.muteUser(boris.id, 1), refused("forbidden"));
        await assert.rejects(anna.adapter.unmuteUser(boris.id), refused("forbidden"));
      });
      test("blockUser keeps direct messages away, unblockUser lets them in", async () => {
        const [one, other] = [await backend.user("one"), await backend.user("other")];
        const { dm } = await one.adapter.createDirectMessage(other.id);
        await one.adapter.blockUser(other.id);
        assert.deepEqual((await one.adapter.getMe()).user.blocked_users, [other.id]);
        await assert.rejects(other.adapter.sendDMMessage(dm.id, "hello", "text"), refused("forbidden"));
        await assert.rejects(other.adapter.sendFriendRequest(one.id), refused("forbidden"));
        await one.adapter.unblockUser(other.id);
        assert.equal((await other.adapter.sendDMMessage(dm.id, "hello", "text")).message.content, "hello");
      });
      test("blockUser and unblockUser refuse strangers and guests", async () => {
        await assert.rejects(anna.adapter.blockUser("nobody000000000"), refused("invalid"));
        await assert.rejects(guest.unblockUser(anna.id), refused("unauthorized"));
      });
      test("uploadAvatar", async () => {
        const { avatarUrl } = await anna.adapter.uploadAvatar(file(PIXEL, "me.png", "image/png"));
        assert.deepEqual((await get(avatarUrl)).bytes, PIXEL);
        assert.equal((await boris.adapter.getUserById(anna.id)).user.avatar_url, avatarUrl);
      });
      test("uploadAvatar refuses what is no image", () =>
        assert.rejects(anna.adapter.uploadAvatar(file("text", "me.txt", "text/plain")), refused("invalid")));
    });

    describe("rooms", () => {
      test("getRooms has counts, members and the last message", async () => {
        const { rooms } = await boris.adapter.getRooms();
        const found = rooms.find(({ id }) => id === room.id);
        assert.deepEqual(
          [found.name, found.type, found.created_by, found.my_role],
          ["Plans", "private", anna.id, "member"],
        );
        assert.deepEqual(new Set(found.members), new Set([anna.id, boris.id]));
        assert.equal(typeof found.unread_count[boris.id], "number");
        assert.equal(found.last_message.sender_username, anna.username);
      });
      test("getRooms hides other people's rooms, and refuses a guest", async () => {
        const { rooms } = await vera.adapter.getRooms();
        assert.ok(!rooms.some(({ id }) => id === room.id));
        await assert.rejects(guest.getRooms(), refused("unauthorized"));
      });
      test("createRoom with members, once for an id", async () => {
        const id = `room${Date.now().toString(36)}abcdefg`.slice(0, 15);
        const made = await anna.adapter.createRoom("Twice", "private", [boris.id, vera.id], { id });
        const again = await anna.adapter.createRoom("Twice", "private", [boris.id, vera.id], { id });
        assert.deepEqual([made.room.id, again.room.id, again.room.member_count], [id, id, 3]);
      });
      test("createRoom refuses an empty name, and makes no room when a member cannot be added", async () => {
        await assert.rejects(anna.adapter.createRoom(" ", "public"), refused("invalid"));
        const before = (await anna.adapter.getRooms()).rooms.length;
        await assert.rejects(anna.adapter.createRoom("Half", "private", ["nobody000000000"]), refused("not_found"));
        assert.equal((await anna.adapter.getRooms()).rooms.length, before);
      });
      test("joinRoom joins a public room, twice without harm", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "public");
        await vera.adapter.joinRoom(hall.id);
        await vera.adapter.joinRoom(hall.id);
        assert.equal((await vera.adapter.getRoom(hall.id)).room.my_role, "member");
      });
      test("joinRoom refuses a private room", () =>
        assert.rejects(vera.adapter.joinRoom(room.id), refused("forbidden")));
      test("leaveRoom hands the room on", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        await anna.adapter.leaveRoom(hall.id);
        assert.equal((await boris.adapter.getRoom(hall.id)).room.my_role, "owner");
        await boris.adapter.leaveRoom(hall.id);
        await assert.rejects(boris.adapter.getRoom(hall.id), refused("not_found"));
      });
      test("leaveRoom refuses a room of others", () =>
        assert.rejects(vera.adapter.leaveRoom(room.id), refused("not_found")));
      test("inviteToRoom lets in, and notifies", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private");
        await anna.adapter.inviteToRoom(hall.id, vera.id);
        assert.equal((await vera.adapter.getRoom(hall.id)).room.name, "Hall");
        const { notifications } = await vera.adapter.getNotifications();
        const invitation = notifications.find(({ roomId }) => roomId === hall.id);
        assert.deepEqual(
          [invitation.type, invitation.roomName, invitation.fromUserId],
          ["room_invite", "Hall", anna.id],
        );
        assert.match(invitation.content, /added you to “Hall”$/);
      });
      test("inviteToRoom refuses members of a private room, and strangers", async () => {
        await assert.rejects(boris.adapter.inviteToRoom(room.id, vera.id), refused("forbidden"));
        await assert.rejects(vera.adapter.inviteToRoom(room.id, vera.id), refused("not_found"));
      });
      test("deleteRoom", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "public");
        await anna.adapter.deleteRoom(hall.id);
        await assert.rejects(anna.adapter.getRoom(hall.id), refused("not_found"));
      });
      test("deleteRoom of a direct room hides it for the caller only, also for its creator", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        const { dm } = await one.adapter.createDirectMessage(two.id);
        await one.adapter.sendDMMessage(dm.id, "keep this", "text");
        await one.adapter.deleteRoom(dm.id);
        assert.ok(!(await one.adapter.getRooms()).rooms.some(({ id }) => id === dm.id), "hidden for the caller");
        const { messages } = await two.adapter.getMessages(dm.id, 10);
        assert.deepEqual(
          messages.map(({ content }) => content),
          ["keep this"],
        );
        assert.ok((await two.adapter.getDirectMessages()).dms.some(({ id }) => id === dm.id));
        await assert.rejects(vera.adapter.deleteRoom(dm.id), refused("not_found"));
      });
      test("deleteRoom refuses members", () => assert.rejects(boris.adapter.deleteRoom(room.id), refused("forbidden")));
      test("pinMessage and unpinMessage keep several pins", async () => {
        const { message: second } = await anna.adapter.sendMessage(room.id, "second");
        await anna.adapter.pinMessage(room.id, message.id);
        await anna.adapter.pinMessage(room.id, second.id);
        const pins = async () => {
          const { room: now } = await boris.adapter.getRoom(room.id);
          return [now.pinned_message_id, now.pinned_message_ids];
        };
        assert.deepEqual(await pins(), [second.id, [second.id, message.id]]);
        await anna.adapter.unpinMessage(room.id);
        assert.deepEqual(await pins(), [message.id, [message.id]]);
        await anna.adapter.unpinMessage(room.id, message.id);
        assert.deepEqual(await pins(), [undefined, []]);
      });
      test("pinMessage and unpinMessage refuse members, and messages of other rooms", async () => {
        await assert.rejects(boris.adapter.pinMessage(room.id, message.id), refused("forbidden"));
        await assert.rejects(boris.adapter.unpinMessage(room.id), refused("forbidden"));
        const { room: hall } = await anna.adapter.createRoom("Hall", "public");
        await assert.rejects(anna.adapter.pinMessage(hall.id, message.id), refused("not_found"));
      });
      test("markAsRead clears counts, mentions only if asked", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        const { message: own } = await boris.adapter.sendMessage(hall.id, "mine");
        await anna.adapter.sendMessage(hall.id, `look, @${boris.username}!`);
        await anna.adapter.addReaction(own.id, "👍");
        const counts = async () => {
          const { room: now } = await boris.adapter.getRoom(hall.id);
          return [now.unread_count, now.unread_mentions, now.unread_reactions].map((count) => count[boris.id]);
        };
        assert.deepEqual(await counts(), [1, 1, 1]);
        await boris.adapter.markAsRead(hall.id, false, false);
        assert.deepEqual(await counts(), [0, 1, 1]);
        await boris.adapter.markAsRead(hall.id);
        assert.deepEqual(await counts(), [0, 0, 0]);
      });
      test("markAsRead refuses a room of others", () =>
        assert.rejects(vera.adapter.markAsRead(room.id), refused("not_found")));
      test("members: roles and removal", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id, vera.id]);
        await anna.adapter.setMemberRole(hall.id, boris.id, "moderator");
        await boris.adapter.removeMember(hall.id, vera.id);
        const { members } = await boris.adapter.getMembers(hall.id);
        assert.deepEqual(
          members.map(({ user, role }) => [user.id, role]),
          [
            [anna.id, "owner"],
            [boris.id, "moderator"],
          ],
        );
        await assert.rejects(boris.adapter.setMemberRole(hall.id, boris.id, "member"), refused("forbidden"));
        await assert.rejects(boris.adapter.removeMember(hall.id, anna.id), refused("forbidden"));
        assert.deepEqual((await vera.adapter.getMembers(hall.id)).members, []);
      });
      test("renameRoom and muteRoom", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        assert.equal((await anna.adapter.renameRoom(hall.id, "Garden")).room.name, "Garden");
        await boris.adapter.muteRoom(hall.id, true);
        assert.equal((await boris.adapter.getRoom(hall.id)).room.muted, true);
        await assert.rejects(boris.adapter.renameRoom(hall.id, "Mine"), refused("forbidden"));
        await assert.rejects(vera.adapter.muteRoom(hall.id, true), refused("not_found"));
      });
      test("getOrCreateFavorites makes one room that nobody else enters", async () => {
        const [one, two] = [await anna.adapter.getOrCreateFavorites(), await anna.adapter.getOrCreateFavorites()];
        assert.deepEqual([one.room.id, one.room.is_favorites], [two.room.id, true]);
        assert.equal(one.room.name, backend.favorites ?? "Favourites");
        await assert.rejects(anna.adapter.inviteToRoom(one.room.id, boris.id), refused("forbidden"));
        await assert.rejects(guest.getOrCreateFavorites(), refused("unauthorized"));
      });
    });

    describe("messages", () => {
      test("getMessages pages from the newest, oldest first", async () => {
        const { room: long } = await anna.adapter.createRoom("Long", "private");
        for (let i = 0; i < 5; i++) await anna.adapter.sendMessage(long.id, `n${i}`);
        const read = ({ messages }) => messages.map(({ content }) => content);
        const newest = await anna.adapter.getMessages(long.id, 2);
        const middle = await anna.adapter.getMessages(long.id, { limit: 2, before: newest.cursor });
        const oldest = await anna.adapter.getMessages(long.id, { limit: 2, before: middle.cursor });
        assert.deepEqual([read(newest), read(middle), read(oldest)], [["n3", "n4"], ["n1", "n2"], ["n0"]]);
        assert.equal(oldest.cursor, null);
      });
      test("getMessages refuses a room of others", () =>
        assert.rejects(vera.adapter.getMessages(room.id, 10), refused("not_found")));
      test("sendMessage with a reply and all fields", async () => {
        const { message: sent } = await boris.adapter.sendMessage(room.id, "answer", "text", message.id);
        assert.deepEqual(
          [sent.room_id, sent.sender_id, sent.sender_username, sent.content, sent.type, sent.reply_to, sent.state],
          [room.id, boris.id, boris.username, "answer", "text", message.id, undefined],
        );
        const { message: stored } = await anna.adapter.getMessage(sent.id);
        assert.equal(stored.content, "answer");
      });
      test("sendMessage refuses who is no member, and keeps the refused text", async () => {
        await assert.rejects(vera.adapter.sendMessage(room.id, "let me in"), refused("forbidden", "not_found"));
        const [kept] = vera.adapter.getPendingMessages(room.id);
        assert.deepEqual([kept.content, kept.state], ["let me in", "failed"]);
        await assert.rejects(vera.adapter.retryMessage(kept.id), refused("forbidden", "not_found"));
        vera.adapter.discardMessage(kept.id);
        assert.deepEqual(vera.adapter.getPendingMessages(), []);
      });
      test("sendMessage with an id is stored once", async () => {
        const id = "once0000000000a";
        await anna.adapter.sendMessage(room.id, "once", "text", undefined, { id });
        const { message: again } = await anna.adapter.sendMessage(room.id, "once", "text", undefined, { id });
        assert.equal(again.id, id);
        const { messages } = await anna.adapter.searchMessages("once", { roomId: room.id });
        assert.equal(messages.length, 1);
      });
      test("sendMessage with files", async () => {
        const files = [file("content", "plan.txt", "text/plain")];
        const { message: sent } = await anna.adapter.sendMessage(room.id, "", "file", undefined, { files });
        const { url } = await boris.adapter.getAttachmentUrl(sent.attachments[0]);
        assert.equal((await get(url)).bytes.toString(), "content");
        assert.equal((await get(sent.attachments[0].url)).status, 404, "without a token");
        await assert.rejects(guest.getAttachmentUrl(sent.attachments[0]), refused("unauthorized"));
      });
      test("files keep names in any alphabet, and sizes: in messages, events, lists and copies", async () => {
        const [seen, ready] = [[], collector()];
        const stop = boris.adapter.subscribeToRoom(room.id, (next) => seen.push(next), { onReady: () => ready(true) });
        await ready.until(Boolean, "the subscription");
        const files = [file("отчёт", "отчёт за ноябрь.pdf", "application/pdf"), file("b", "план.txt", "text/plain")];
        const { message: sent } = await anna.adapter.sendMessage(room.id, "", "file", undefined, { files });
        const described = ({ attachments }) => attachments.map(({ name, size }) => [name, size]);
        const expected = [
          ["отчёт за ноябрь.pdf", 10],
          ["план.txt", 1],
        ];
        assert.deepEqual(described(sent), expected);
        await until(() => seen.some(({ id }) => id === sent.id), "the event");
        stop();
        assert.deepEqual(described(seen.find(({ id }) => id === sent.id)), expected);
        assert.deepEqual(described((await boris.adapter.getMessage(sent.id)).message), expected);
        assert.equal((await boris.adapter.getRoom(room.id)).room.last_message.file_name, "отчёт за ноябрь.pdf");
        const { message: edited } = await anna.adapter.editMessage(sent.id, "with words");
        assert.deepEqual(described(edited), expected);
        const { message: copy } = await anna.adapter.forwardMessage(sent.id, room.id);
        assert.deepEqual(described(copy), expected);
      });
      test("editMessage", async () => {
        const { message: sent } = await anna.adapter.sendMessage(room.id, "draft");
        const { message: edited } = await anna.adapter.editMessage(sent.id, "final");
        assert.deepEqual([edited.content, edited.edited, typeof edited.edited_at], ["final", true, "string"]);
      });
      test("editMessage refuses others", async () => {
        await assert.rejects(boris.adapter.editMessage(message.id, "mine"), refused("forbidden"));
        await assert.rejects(vera.adapter.editMessage(message.id, "mine"), refused("not_found"));
      });
      test("deleteMessage", async () => {
        const { message: sent } = await anna.adapter.sendMessage(room.id, "oops");
        await anna.adapter.deleteMessage(sent.id);
        await assert.rejects(anna.adapter.getMessage(sent.id), refused("not_found"));
      });
      test("deleteMessage refuses others", () =>
        assert.rejects(boris.adapter.deleteMessage(message.id), refused("forbidden")));
      test("addReaction and removeReaction, twice without harm", async () => {
        const { message: sent } = await anna.adapter.sendMessage(room.id, "react");
        for (let i = 0; i < 2; i++) await boris.adapter.addReaction(sent.id, "🎉");
        assert.deepEqual((await anna.adapter.getMessage(sent.id)).message.reactions, { "🎉": [boris.id] });
        for (let i = 0; i < 2; i++) await boris.adapter.removeReaction(sent.id, "🎉");
        assert.deepEqual((await anna.adapter.getMessage(sent.id)).message.reactions, {});
      });
      test("addReaction and removeReaction refuse who does not see the message", async () => {
        await assert.rejects(vera.adapter.addReaction(message.id, "👍"), refused("forbidden", "not_found"));
        await assert.rejects(vera.adapter.removeReaction(message.id, "👍"), refused("not_found"));
      });
      test("forwardMessage copies content and files", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [vera.id]);
        const files = [file("content", "plan.txt", "text/plain")];
        const { message: source } = await anna.adapter.sendMessage(room.id, "see this", "file", undefined, { files });
        await boris.adapter.addReaction(source.id, "👍");
        const { message: copy } = await anna.adapter.forwardMessage(source.id, hall.id);
        assert.deepEqual(
          [copy.content, copy.forwarded, copy.forwarded_from, copy.reactions],
          ["see this", true, source.id, {}],
        );
        await anna.adapter.deleteMessage(source.id);
        const { message: seen } = await vera.adapter.getMessage(copy.id);
        const { url } = await vera.adapter.getAttachmentUrl(seen.attachments[0]);
        assert.equal((await get(url)).bytes.toString(), "content");
        assert.equal(seen.forwarded, true);
      });
      test("forwardMessage refuses a message or room out of sight", async () => {
        const { room: hall } = await vera.adapter.createRoom("Hall", "private");
        await assert.rejects(vera.adapter.forwardMessage(message.id, hall.id), refused("not_found"));
        await assert.rejects(anna.adapter.forwardMessage(message.id, hall.id), refused("forbidden"));
      });
      test("searchMessages finds Russian text in any case, and quotes", async () => {
        await anna.adapter.sendMessage(room.id, "Привет, it's 100%");
        for (const query of ["привет", "ПРИВЕТ", "it's", "IT'S"]) {
          const { messages } = await boris.adapter.searchMessages(query);
          assert.ok(
            messages.some(({ content }) => content === "Привет, it's 100%"),
            query,
          );
        }
        assert.deepEqual((await boris.adapter.searchMessages("no such thing \\")).messages, []);
      });
      test("searchMessages finds nothing of other people's rooms, and refuses a guest", async () => {
        assert.deepEqual((await vera.adapter.searchMessages("first")).messages, []);
        await assert.rejects(guest.searchMessages("first"), refused("unauthorized"));
      });
    });

    describe("direct messages", () => {
      test("createDirectMessage makes one room of two, found again from both sides", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        const [a, b] = await Promise.all([
          one.adapter.createDirectMessage(two.id),
          two.adapter.createDirectMessage(one.id),
        ]);
        assert.equal(a.dm.id, b.dm.id);
        assert.deepEqual(new Set(a.dm.participants), new Set([one.id, two.id]));
        assert.equal(a.dm.user.id, two.id);
        const { room: same } = await one.adapter.createRoom("", "dm", [two.id]);
        assert.deepEqual([same.id, same.type, same.name], [a.dm.id, "dm", two.username]);
      });
      test("createDirectMessage refuses oneself, strangers and who blocks", async () => {
        await assert.rejects(anna.adapter.createDirectMessage(anna.id), refused("invalid"));
        await assert.rejects(anna.adapter.createDirectMessage("nobody000000000"), refused("not_found"));
        const hermit = await backend.user("hermit");
        await hermit.adapter.blockUser(anna.id);
        await assert.rejects(anna.adapter.createDirectMessage(hermit.id), refused("forbidden"));
      });
      test("sendDMMessage, getDMMessages, getDirectMessages, hideDirectMessage", async () => {
        const { dm } = await anna.adapter.createDirectMessage(vera.id);
        await anna.adapter.sendDMMessage(dm.id, "hello", "text");
        const { messages } = await vera.adapter.getDMMessages(dm.id, 10);
        assert.deepEqual(
          messages.map(({ content }) => content),
          ["hello"],
        );
        const listed = async () => (await vera.adapter.getDirectMessages()).dms.find(({ id }) => id === dm.id);
        assert.deepEqual([(await listed()).unread_count, (await listed()).user.id], [{ [vera.id]: 1 }, anna.id]);
        await vera.adapter.hideDirectMessage(dm.id);
        assert.equal(await listed(), undefined);
        await anna.adapter.sendDMMessage(dm.id, "still there?", "text");
        assert.equal((await listed()).last_message.content, "still there?");
      });
      test("sendDMMessage, getDMMessages, getDirectMessages, hideDirectMessage refuse others", async () => {
        const { dm } = await anna.adapter.createDirectMessage(boris.id);
        await assert.rejects(vera.adapter.sendDMMessage(dm.id, "me too", "text"), refused("forbidden", "not_found"));
        await assert.rejects(vera.adapter.getDMMessages(dm.id, 10), refused("not_found"));
        await assert.rejects(vera.adapter.hideDirectMessage(dm.id), refused("not_found"));
        assert.ok(!(await vera.adapter.getDirectMessages()).dms.some(({ id }) => id === dm.id));
        for (const { id } of vera.adapter.getPendingMessages()) vera.adapter.discardMessage(id);
      });
    });

    describe("friends", () => {
      test("sendFriendRequest, acceptFriendRequest, getFriends, removeFriend", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        const { requests } = await two.adapter.getFriendRequests();
        assert.deepEqual(
          requests.map(({ from, to, status }) => [from.id, to.id, status]),
          [[one.id, two.id, "pending"]],
        );
        await two.adapter.acceptFriendRequest(requests[0].id);
        for (const [user, friend] of [
          [one, two],
          [two, one],
        ]) {
          assert.deepEqual(
            (await user.adapter.getFriends()).users.map(({ id }) => id),
            [friend.id],
          );
          assert.deepEqual((await user.adapter.getMe()).user.friends, [friend.id]);
        }
        assert.equal((await one.adapter.getNotifications()).notifications[0].type, "friend_accepted");
        await one.adapter.removeFriend(two.id);
        assert.deepEqual((await two.adapter.getFriends()).users, []);
      });
      test("two requests that cross make friends", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        await two.adapter.sendFriendRequest(one.id);
        assert.equal((await one.adapter.getFriends()).users.length, 1);
      });
      test("rejectFriendRequest ends a request for good", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        const { requests } = await two.adapter.getFriendRequests();
        await two.adapter.rejectFriendRequest(requests[0].id);
        assert.deepEqual((await one.adapter.getFriendRequests()).requests, []);
        await assert.rejects(one.adapter.sendFriendRequest(two.id), refused("conflict"));
      });
      test("friends' methods refuse", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await assert.rejects(one.adapter.sendFriendRequest(one.id), refused("invalid"));
        await one.adapter.sendFriendRequest(two.id);
        const { requests } = await one.adapter.getFriendRequests();
        await assert.rejects(one.adapter.acceptFriendRequest(requests[0].id), refused("forbidden"));
        await assert.rejects(one.adapter.rejectFriendRequest(requests[0].id), refused("forbidden"));
        await assert.rejects(vera.adapter.acceptFriendRequest(requests[0].id), refused("not_found"));
        await assert.rejects(one.adapter.removeFriend(vera.id), refused("not_found"));
        await assert.rejects(guest.getFriends(), refused("unauthorized"));
      });
    });

    describe("end-to-end encryption", () => {
      test("updatePublicKey", async () => {
        await anna.adapter.updatePublicKey("MIIBIjANBg==");
        assert.equal((await boris.adapter.getUserById(anna.id)).user.public_key, "MIIBIjANBg==");
      });
      test("updatePublicKey refuses a key that is too long", () =>
        assert.rejects(anna.adapter.updatePublicKey("x".repeat(9000)), refused("invalid")));
      test("saveRoomKeys and getRoomKey, with versions", async () => {
        const { room: secret } = await anna.adapter.createRoom("Secret", "private", [boris.id]);
        assert.deepEqual(await boris.adapter.getRoomKey(secret.id), { encryptedKey: null });
        const first = await anna.adapter.saveRoomKeys(secret.id, { [anna.id]: "a1", [boris.id]: "b1" });
        await anna.adapter.inviteToRoom(secret.id, vera.id);
        const same = await anna.adapter.saveRoomKeys(secret.id, { [vera.id]: "v1" });
        const second = await anna.adapter.saveRoomKeys(secret.id, { [anna.id]: "a2", [boris.id]: "b2" });
        assert.deepEqual([first, same, second], [{ version: 1 }, { version: 1 }, { version: 2 }]);
        assert.deepEqual(await boris.adapter.getRoomKey(secret.id), { encryptedKey: "b2", version: 2 });
        assert.deepEqual(
          (await boris.adapter.getRoomKeys(secret.id)).keys.map(({ encryptedKey }) => encryptedKey),
          ["b2", "b1"],
        );
        assert.equal((await boris.adapter.getMe()).user.room_keys[secret.id], "b2");
      });
      test("saveRoomKeys stores all keys or none, and refuses others", async () => {
        const { room: secret } = await anna.adapter.createRoom("Secret", "private", [boris.id]);
        await assert.rejects(
          anna.adapter.saveRoomKeys(secret.id, { [anna.id]: "a", [vera.id]: "v" }),
          refused("forbidden"),
        );
        assert.deepEqual(await anna.adapter.getRoomKey(secret.id), { encryptedKey: null });
        await assert.rejects(vera.adapter.saveRoomKeys(secret.id, { [vera.id]: "v" }), refused("forbidden"));
        await assert.rejects(vera.adapter.getRoomKey(secret.id), refused("not_found"));
      });
      test("ciphertext passes byte for byte: sent, read, delivered, edited, forwarded", async () => {
        const { room: secret } = await anna.adapter.createRoom("Secret", "private", [boris.id]);
        const seen = collector();
        const ready = collector();
        boris.adapter.subscribeToRoom(secret.id, seen, { onReady: () => ready(true) });
        await ready.until(Boolean, "the subscription");
        const ciphertext = JSON.stringify({
          version: "v1",
          ciphertext: Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 167) % 256)).toString("base64"),
          iv: "AAECAwQFBgcICQoL",
          note: "\u0000\u200b\u2028 <b>&amp; \\\\ \" ' 👩‍👩‍👧 \r\n\t",
        });
        const { message: sent } = await anna.adapter.sendMessage(secret.id, ciphertext, "text");
        const delivered = await seen.until(({ id }) => id === sent.id, "the delivery");
        const { messages } = await boris.adapter.getMessages(secret.id, 10);
        const { message: edited } = await anna.adapter.editMessage(sent.id, `${ciphertext} `);
        const { message: copy } = await anna.adapter.forwardMessage(sent.id, secret.id);
        assert.equal(sent.content, ciphertext);
        assert.equal(delivered.content, ciphertext);
        assert.equal(messages[0].content, ciphertext);
        assert.equal(edited.content, `${ciphertext} `);
        assert.equal(copy.content, `${ciphertext} `);
      });
    });

    describe("achievements", () => {
      test("unlockAchievement grants what the server finds earned", async () => {
        const { id: earned } = (await anna.adapter.getAchievements()).achievements.find(
          ({ id }) => id === "first_message",
        );
        await anna.adapter.unlockAchievement(earned);
        await anna.adapter.unlockAchievement(earned);
        const { achievements } = await boris.adapter.getAchievements({ userId: anna.id });
        const found = achievements.find(({ id }) => id === earned);
        assert.deepEqual([found.progress, found.max_progress, typeof found.unlocked_at], [1, 1, "string"]);
      });
      test("unlockAchievement refuses what is not earned, what the server cannot check, and unknown ones", async () => {
        await assert.rejects(vera.adapter.unlockAchievement("magnet"), refused("forbidden"));
        await assert.rejects(vera.adapter.unlockAchievement("perfect_taste"), refused("unsupported"));
        await assert.rejects(anna.adapter.unlockAchievement("no-such"), refused("not_found"));
      });
      test("getAchievements refuses a guest and strangers", async () => {
        await assert.rejects(guest.getAchievements(), refused("unauthorized"));
        await assert.rejects(anna.adapter.getAchievements({ userId: "nobody000000000" }), refused("not_found"));
      });
    });

    describe("polls and notifications", () => {
      test("createPoll, votePoll, getPoll", async () => {
        const { poll } = await anna.adapter.createPoll(room.id, "When?", ["Monday", "Friday"]);
        await boris.adapter.votePoll(poll.id, 0);
        await boris.adapter.votePoll(poll.id, 1);
        const { poll: now } = await anna.adapter.getPoll(poll.id);
        assert.deepEqual(
          now.options.map(({ count, votes }) => [count, votes]),
          [
            [0, []],
            [1, [boris.id]],
          ],
        );
        const { message: shown } = await boris.adapter.getMessage(poll.message_id);
        assert.deepEqual([shown.type, shown.content], ["poll", "📊 When?\n\n1. Monday\n2. Friday"]);
        assert.equal((await boris.adapter.getPoll(shown.id)).poll.question, "When?", "found by its message");
        assert.equal((await boris.adapter.votePoll(shown.id, 0)).poll.my_vote, 0);
        assert.equal((await boris.adapter.votePoll(poll.id, null)).poll.my_vote, undefined);
      });
      test("an anonymous poll names nobody but oneself", async () => {
        const { poll } = await anna.adapter.createPoll(room.id, "Secret?", ["Yes", "No"], true);
        const own = await boris.adapter.votePoll(poll.id, 0);
        const { poll: seen } = await anna.adapter.getPoll(poll.id);
        assert.deepEqual(
          [own.poll.options[0].votes, seen.options[0]],
          [[boris.id], { text: "Yes", count: 1, votes: [] }],
        );
      });
      test("createPoll, votePoll, getPoll refuse", async () => {
        await assert.rejects(anna.adapter.createPoll(room.id, "When?", ["only one"]), refused("invalid"));
        await assert.rejects(vera.adapter.createPoll(room.id, "When?", ["a", "b"]), refused("forbidden"));
        const { poll } = await anna.adapter.createPoll(room.id, "When?", ["a", "b"]);
        await assert.rejects(vera.adapter.votePoll(poll.id, 0), refused("not_found"));
        await assert.rejects(vera.adapter.getPoll(poll.id), refused("not_found"));
        await assert.rejects(boris.adapter.votePoll(poll.id, 2), refused("invalid"));
      });
      test("getNotifications, markNotificationAsRead, deleteNotification", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        const { notifications } = await two.adapter.getNotifications({ limit: 10 });
        assert.deepEqual(
          notifications.map(({ type, read, fromUserId }) => [type, read, fromUserId]),
          [["friend_request", false, one.id]],
        );
        await two.adapter.markNotificationAsRead(notifications[0].id);
        assert.equal((await two.adapter.getNotifications()).notifications[0].read, true);
        await assert.rejects(one.adapter.markNotificationAsRead(notifications[0].id), refused("not_found"));
        await assert.rejects(one.adapter.deleteNotification(notifications[0].id), refused("not_found"));
        await two.adapter.deleteNotification(notifications[0].id);
        await two.adapter.deleteNotification(notifications[0].id);
        assert.deepEqual((await two.adapter.getNotifications()).notifications, []);
        await assert.rejects(guest.getNotifications(), refused("unauthorized"));
      });
    });

    describe("notifications of friend requests", () => {
      test("a notification names the request, and goes with the answer", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        const [note] = (await two.adapter.getNotifications()).notifications;
        const { requests } = await two.adapter.getFriendRequests();
        assert.equal(note.requestId, requests[0].id);
        assert.match(note.content, backend.friendRequest ?? /wants to be your friend$/);
        await two.adapter.acceptFriendRequest(note.requestId);
        await two.adapter.deleteNotification(note.id); // deleted with the request already
        assert.ok(!(await two.adapter.getNotifications()).notifications.some(({ id }) => id === note.id));
      });
      test("a request that is taken back takes its notification along", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        await one.adapter.sendFriendRequest(two.id);
        await one.adapter.removeFriend(two.id);
        assert.deepEqual((await two.adapter.getNotifications()).notifications, []);
      });
    });

    describe("accounts", () => {
      test("changePassword ends other logins and keeps this one", async () => {
        const user = await backend.user("careful");
        const other = backend.adapter();
        await other.signin(user.email, backend.password);
        await user.adapter.changePassword(backend.password, "a-new-password");
        assert.equal((await user.adapter.getMe()).user.id, user.id);
        await assert.rejects(other.getMe(), refused("unauthorized"));
        assert.equal((await other.signin(user.email, "a-new-password")).user.id, user.id);
      });
      test("changePassword refuses a wrong old password and a short new one", async () => {
        await assert.rejects(vera.adapter.changePassword("wrong", "a-new-password"), refused("invalid"));
        await assert.rejects(vera.adapter.changePassword(backend.password, "short"), refused("invalid"));
      });
      test("deleteUser deletes the own account; messages stay, rooms get another owner", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        const { room: hall } = await one.adapter.createRoom("Hall", "private", [two.id]);
        const { message: last } = await one.adapter.sendMessage(hall.id, "farewell");
        await one.adapter.deleteUser(one.id);
        assert.equal(one.adapter.currentUserId(), null);
        await assert.rejects(one.adapter.signin(one.email, backend.password), refused("unauthorized"));
        assert.equal((await two.adapter.getMessage(last.id)).message.content, "farewell");
        assert.equal((await two.adapter.getRoom(hall.id)).room.my_role, "owner");
        await two.adapter.renameRoom(hall.id, "Mine now");
      });
      test("deleteUser by an admin, and refused for others", async () => {
        const [admin, other, second] = await Promise.all(["admin", "other", "second"].map((p) => backend.user(p)));
        await Promise.all([admin, second].map(({ id }) => backend.promote(id, "admin")));
        await assert.rejects(anna.adapter.deleteUser(other.id), refused("forbidden"));
        await assert.rejects(admin.adapter.deleteUser(second.id), refused("forbidden"));
        await admin.adapter.deleteUser(other.id);
        await assert.rejects(anna.adapter.getUserById(other.id), refused("not_found"));
      });
    });

    describe("guests", () => {
      // With own tests of a refusal, or about this device only.
      const ELSEWHERE = [
        ...["close", "currentUserId", "onAuthChange", "connectionState", "onConnectionState", "metrics"],
        ...["getPendingMessages", "discardMessage", "retryMessage", "sendTyping"],
        ...["subscribeToRoom", "subscribeToRoomUpdates", "subscribeToUserStatus"],
        ...["signup", "signin", "signout", "confirmEmailChange"],
      ];
      nodeTest("every method refuses a guest", async () => {
        const picture = file(PIXEL, "me.png", "image/png");
        const attachment = { name: "x", url: "http://127.0.0.1/x" };
        const calls = {
          ...{
            getMe: [],
            refreshToken: [],
            getRooms: [],
            getDirectMessages: [],
            getFriends: [],
            getFriendRequests: [],
          },
          ...{ getNotifications: [], getAchievements: [], getOrCreateFavorites: [], getStatus: [] },
          ...{ searchUsers: ["a"], getUserById: [anna.id], updateUserProfile: [{ display_name: "x" }] },
          ...{ updateUserRole: [anna.id, "vip"], banUser: [anna.id, 1], unbanUser: [anna.id], muteUser: [anna.id, 1] },
          ...{ unmuteUser: [anna.id], blockUser: [anna.id], unblockUser: [anna.id], uploadAvatar: [picture] },
          ...{ changePassword: ["old", "new"], changeEmail: ["x@example.com"], deleteUser: [anna.id] },
          ...{ getRoom: [room.id], createRoom: ["Hall", "private"], renameRoom: [room.id, "x"], joinRoom: [room.id] },
          ...{ leaveRoom: [room.id], inviteToRoom: [room.id, vera.id], deleteRoom: [room.id] },
          ...{ pinMessage: [room.id, message.id], unpinMessage: [room.id, message.id], markAsRead: [room.id] },
          ...{ getMembers: [room.id], removeMember: [room.id, boris.id], setMemberRole: [room.id, boris.id, "member"] },
          ...{ muteRoom: [room.id, true], getMessages: [room.id, 10], getMessage: [message.id] },
          ...{ sendMessage: [room.id, "hm", "text"], editMessage: [message.id, "hm"], deleteMessage: [message.id] },
          ...{ addReaction: [message.id, "👍"], removeReaction: [message.id, "👍"] },
          ...{ forwardMessage: [message.id, room.id], searchMessages: ["first"], getAttachmentUrl: [attachment] },
          ...{ createDirectMessage: [anna.id], getDMMessages: [room.id, 10], sendDMMessage: [room.id, "hm", "text"] },
          ...{ hideDirectMessage: [room.id], sendFriendRequest: [anna.id], acceptFriendRequest: ["request00000000"] },
          ...{ rejectFriendRequest: ["request00000000"], removeFriend: [anna.id], updatePublicKey: ["key"] },
          ...{ getRoomKey: [room.id], getRoomKeys: [room.id], saveRoomKeys: [room.id, { [anna.id]: "a" }] },
          ...{ unlockAchievement: ["first_message"], createPoll: [room.id, "When?", ["a", "b"]] },
          ...{ getPoll: [message.id], votePoll: [message.id, 0], markNotificationAsRead: ["note00000000000"] },
          ...{ deleteNotification: ["note00000000000"], setStatus: ["away"], setIdle: [true] },
          ...{ getStatuses: [[anna.id]], presence: [room.id], uploadFile: [picture, "x.png"] },
          ...{ deleteFile: ["x.png"], getFileUrl: ["x.png"], subscribeToUser: [{}] },
        };
        const methods = Object.keys(guest).filter((name) => typeof guest[name] === "function");
        const missing = methods.filter((name) => !(name in calls) && !ELSEWHERE.includes(name));
        assert.deepEqual(missing, [], "each method of the adapter is called here, or named as tested elsewhere");
        for (const [name, values] of Object.entries(calls)) {
          if (name === "setIdle" && !guest.setIdle) continue;
          const call = (async () => guest[name](...values))();
          await assert.rejects(call, refused("unauthorized", "unsupported"), name);
        }
      });
    });

    describe("storage", () => {
      test("uploadFile, getFileUrl, deleteFile; a path holds one file", async () => {
        const path = `${anna.id}/notes/plan.txt`;
        await anna.adapter.uploadFile(file("one", "plan.txt", "text/plain"), path);
        const { url } = await anna.adapter.uploadFile(file("two", "plan.txt", "text/plain"), path);
        assert.equal((await anna.adapter.getFileUrl(path)).url, url);
        assert.equal((await get(url)).bytes.toString(), "two");
        await anna.adapter.deleteFile(path);
        assert.equal((await get(url)).status, 404);
        await assert.rejects(anna.adapter.getFileUrl(path), refused("not_found"));
      });
      test("uploadFile, getFileUrl, deleteFile refuse others", async () => {
        const path = `${anna.id}/private.txt`;
        await anna.adapter.uploadFile(file("mine", "private.txt", "text/plain"), path);
        await assert.rejects(boris.adapter.getFileUrl(path), refused("not_found"));
        await assert.rejects(boris.adapter.deleteFile(path), refused("not_found"));
        await assert.rejects(guest.uploadFile(file("x", "x.txt", "text/plain"), path), refused("unauthorized"));
        await assert.rejects(anna.adapter.uploadFile(file("", "", "text/plain"), ""), refused("invalid"));
      });
    });

    describe("cancelling", () => {
      test("an AbortSignal ends a call, also before it began", async () => {
        const controller = new AbortController();
        const call = anna.adapter.getRooms({ signal: controller.signal });
        controller.abort();
        await assert.rejects(call, refused("aborted"));
        await assert.rejects(anna.adapter.getMessages(room.id, 10, { signal: controller.signal }), refused("aborted"));
        await assert.rejects(
          anna.adapter.sendMessage(room.id, "no", "text", undefined, { signal: controller.signal }),
          refused("aborted"),
        );
        assert.deepEqual(
          (await anna.adapter.searchMessages("no", { roomId: room.id })).messages.filter(
            ({ content }) => content === "no",
          ),
          [],
        );
      });
    });

    describe("realtime", () => {
      test("subscribeToRoom tells of messages, edits, reactions and deletes", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        const [seen, gone, ready] = [collector(), collector(), collector()];
        const end = boris.adapter.subscribeToRoom(hall.id, seen, { onDelete: gone, onReady: () => ready(true) });
        await ready.until(Boolean, "the subscription");
        const { message: sent } = await anna.adapter.sendMessage(hall.id, "one");
        const first = await seen.until(({ id }) => id === sent.id, "the message");
        assert.deepEqual([first.content, first.sender_username], ["one", anna.username]);
        await anna.adapter.addReaction(sent.id, "👍");
        await seen.until(({ id, reactions }) => id === sent.id && reactions["👍"]?.includes(anna.id), "the reaction");
        await anna.adapter.editMessage(sent.id, "two");
        await seen.until(
          ({ content, edited, reactions }) => content === "two" && edited && reactions["👍"],
          "the edit with its reaction",
        );
        await anna.adapter.removeReaction(sent.id, "👍");
        await seen.until(({ content, reactions }) => content === "two" && !reactions["👍"], "the reaction's end");
        await anna.adapter.deleteMessage(sent.id);
        await gone.until((id) => id === sent.id, "the delete");
        end();
        const { message: later } = await anna.adapter.sendMessage(hall.id, "unheard");
        await boris.adapter.getMessage(later.id);
        assert.ok(!seen.seen.some(({ id }) => id === later.id), "nothing after the end of the subscription");
      });
      test("subscribeToRoom shows the own message pending, then stored", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private");
        const seen = collector();
        const end = anna.adapter.subscribeToRoom(hall.id, seen);
        const { message: sent } = await anna.adapter.sendMessage(hall.id, "mine");
        await seen.until(({ id, state }) => id === sent.id && !state, "the stored message");
        assert.deepEqual(seen.seen.map(({ id, state }) => [id, state]).slice(0, 2), [
          [sent.id, "pending"],
          [sent.id, undefined],
        ]);
        end();
      });
      test("subscribeToRoom refuses a room of others", async () => {
        const closed = collector();
        const end = vera.adapter.subscribeToRoom(room.id, () => {}, { onClosed: closed });
        assert.equal((await closed.until(Boolean, "the refusal")).code, 103);
        end();
      });
      test("subscribeToUserStatus follows setStatus; an invisible user looks offline", async () => {
        const states = collector();
        const end = anna.adapter.subscribeToUserStatus(boris.id, (status) => states(status));
        const hold = boris.adapter.subscribeToUser({});
        await states.until((status) => status === "online", "online");
        await boris.adapter.setStatus("dnd");
        await states.until((status) => status === "dnd", "dnd");
        await boris.adapter.setStatus("invisible");
        await until(() => states.seen.at(-1) === "offline", "offline", 20_000);
        assert.deepEqual(await boris.adapter.getStatus(), { mode: "invisible" });
        await boris.adapter.setStatus("online");
        await until(() => states.seen.at(-1) === "online", "online again", 20_000);
        const { statuses } = await anna.adapter.getStatuses([boris.id]);
        assert.equal(statuses[boris.id].status, "online");
        await boris.adapter.setIdle?.(true);
        if (boris.adapter.setIdle) await until(() => states.seen.at(-1) === "away", "away", 20_000);
        await boris.adapter.setIdle?.(false);
        end();
        hold();
      });
      test("setStatus and getStatuses refuse a guest", async () => {
        await assert.rejects(guest.setStatus("away"), refused("unsupported", "unauthorized"));
        await assert.rejects(guest.getStatuses([anna.id]), refused("unsupported", "unauthorized"));
      });
      test("subscribeToRoomUpdates keeps the list: invitation, counts, read mark, removal", async () => {
        const [owner, member] = [await backend.user("owner"), await backend.user("member")];
        const lists = collector();
        const end = member.adapter.subscribeToRoomUpdates(lists);
        await lists.until(Boolean, "the first list");
        const { room: hall } = await owner.adapter.createRoom("Club", "private", [member.id]);
        const has = (test) => (rooms) => rooms.some((each) => each.id === hall.id && test(each));
        await lists.until(
          has(() => true),
          "the invitation",
        );
        const { message: sent } = await owner.adapter.sendMessage(hall.id, `hello @${member.username}`);
        const counted = ({ unread_count, unread_mentions, last_message }) =>
          unread_count[member.id] === 1 && unread_mentions[member.id] === 1 && last_message?.id === sent.id;
        await lists.until(has(counted), "one unread message with a mention");
        await member.adapter.markAsRead(hall.id);
        await until(
          () =>
            has(({ unread_count, unread_mentions }) => unread_count[member.id] + unread_mentions[member.id] === 0)(
              lists.seen.at(-1),
            ),
          "the read mark",
          20_000,
        );
        await owner.adapter.removeMember(hall.id, member.id);
        await until(() => !has(() => true)(lists.seen.at(-1)), "the removal", 20_000);
        end();
      });
      test("removed and added again, a subscribed room goes on by itself", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        const [seen, closed, resyncs, ready] = [collector(), collector(), collector(), collector()];
        const handlers = { onClosed: closed, onResync: resyncs, onReady: () => ready(true) };
        const end = boris.adapter.subscribeToRoom(hall.id, seen, handlers);
        await ready.until(Boolean, "the subscription");
        await anna.adapter.removeMember(hall.id, boris.id);
        await closed.until(({ code }) => code === 2100, "the removal");
        await anna.adapter.sendMessage(hall.id, "behind the back");
        await anna.adapter.inviteToRoom(hall.id, boris.id);
        await resyncs.until(Boolean, "the word to load again");
        await until(() => ready.seen.length > 1, "the second subscription", 20_000);
        const { message: sent } = await anna.adapter.sendMessage(hall.id, "welcome back");
        await seen.until(({ id }) => id === sent.id, "a message after the return");
        end();
      });
      test("sendTyping and presence", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        const [typing, presences, ready] = [collector(), collector(), collector()];
        const ends = [
          anna.adapter.subscribeToRoom(hall.id, () => {}, { onTyping: typing, onPresence: presences }),
          boris.adapter.subscribeToRoom(hall.id, () => {}, { onReady: () => ready(true) }),
        ];
        await ready.until(Boolean, "the subscription");
        await presences.until((users) => users.includes(boris.id), "the other user");
        assert.ok((await anna.adapter.presence(hall.id)).userIds.includes(boris.id));
        await until(
          () => {
            boris.adapter.sendTyping(hall.id);
            return typing.seen.some(({ userId, until: end }) => userId === boris.id && end > Date.now());
          },
          "the typing notice",
          20_000,
        );
        ends[1]();
        await until(() => !presences.seen.at(-1).includes(boris.id), "the leave", 20_000);
        ends[0]();
        await assert.rejects(vera.adapter.presence(hall.id), refused("invalid", "unsupported"));
      });
      test("sendTyping tells nobody about a user who may not see the room", async () => {
        const { room: hall } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
        const [typing, ready, closed] = [collector(), collector(), collector()];
        const ends = [
          anna.adapter.subscribeToRoom(hall.id, () => {}, { onTyping: typing }),
          boris.adapter.subscribeToRoom(hall.id, () => {}, { onReady: () => ready(true) }),
          vera.adapter.subscribeToRoom(hall.id, () => {}, { onClosed: closed }),
        ];
        await Promise.all([ready.until(Boolean, "the subscription"), closed.until(Boolean, "the refusal")]);
        const isOf = (user) => typing.seen.some(({ userId }) => userId === user.id);
        // Vera's notices leave before each of Boris's, so that they had arrived first.
        await until(
          () => {
            for (const { adapter } of [vera, boris]) adapter.sendTyping(hall.id);
            return isOf(boris);
          },
          "the notice of a member",
          20_000,
        );
        assert.ok(!isOf(vera), "a notice of a user who may not");
        for (const end of ends) end();
      });
      test("subscribeToUser tells of notifications, requests and keys", async () => {
        const [one, two] = [await backend.user("one"), await backend.user("two")];
        const [notes, requests, keys] = [collector(), collector(), collector()];
        const lists = collector();
        const ends = [
          two.adapter.subscribeToUser({ onNotification: notes, onFriendRequest: requests, onRoomKey: keys }),
          two.adapter.subscribeToRoomUpdates(lists),
        ];
        await until(() => two.adapter.connectionState().state === "connected", "the connection", 20_000);
        await two.adapter.getStatus();
        await one.adapter.sendFriendRequest(two.id);
        const { room: hall } = await one.adapter.createRoom("Hall", "private", [two.id]);
        await one.adapter.saveRoomKeys(hall.id, { [two.id]: "sealed" });
        assert.equal(
          (await notes.until(({ type }) => type === "friend_request", "the notification")).fromUserId,
          one.id,
        );
        assert.equal((await requests.until(({ action }) => action === "create", "the request")).from, one.id);
        assert.deepEqual(await keys.until(Boolean, "the key"), { roomId: hall.id, encryptedKey: "sealed", version: 1 });
        for (const end of ends) end();
      });
      test("subscriptions tell a guest nothing but the missing login", async () => {
        const [other, told] = [backend.adapter(), collector()];
        const ends = [
          other.subscribeToRoom(room.id, told, { onError: (error) => told(error.code), onReady: () => told("ready") }),
          other.subscribeToRoomUpdates(told, { onError: (error) => told(error.code) }),
          other.subscribeToUserStatus(boris.id, (status) => told(status)),
        ];
        const states = collector();
        const end = anna.adapter.subscribeToUserStatus(boris.id, (status) => states(status));
        await states.until(Boolean, "the status for a user who is logged in");
        await until(() => told.seen.length >= 2, "the errors", 20_000);
        assert.deepEqual([...new Set(told.seen)], ["unauthorized"]);
        for (const each of [...ends, end]) each();
        assert.throws(() => guest.subscribeToUser({}), refused("unauthorized"));
      });
    });
    nodeTest("each difference names a test", () => assert.deepEqual([...unused], []));
  });
}
