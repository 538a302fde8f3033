// Replacements for tests of ../contract.mjs, where the old backend keeps less of the contract. Missing functions are
// asserted to give a typed error; missing checks are asserted too, so that a change is noticed.

import assert from "node:assert/strict";
import { collector, until } from "../stage.mjs";
import { refused } from "../contract.mjs";

const unsupported = refused("unsupported");
const png = (name = "me.png") => new File([Buffer.from("89504e470d0a1a0a", "hex")], name, { type: "image/png" });
const contents = ({ messages }) => messages.map(({ content }) => content);
const bytes = async (url) => Buffer.from(await (await fetch(url)).arrayBuffer());

const users = {
  updateUserProfile: async ({ anna }) => {
    const { user } = await anna.adapter.updateUserProfile({ display_name: "Anna" });
    assert.equal(user.display_name, "Anna");
    await assert.rejects(anna.adapter.updateUserProfile({ display_name: "Other", status_text: "busy" }), unsupported);
    assert.equal((await anna.adapter.getMe()).user.display_name, "Anna", "all or nothing");
  },
  "updateUserProfile refuses a username in use": ({ anna }) =>
    assert.rejects(anna.adapter.updateUserProfile({ username: "another" }), unsupported),
  "updateUserRole by an admin": async ({ backend }) => {
    const [admin, other] = [await backend.user("admin"), await backend.user("other")];
    await backend.promote(admin.id, "admin");
    assert.equal((await admin.adapter.updateUserRole(other.id, "vip")).user.role, "vip");
  },
  // A banned user stays logged in, sees no room and writes nothing.
  "banUser and unbanUser by a moderator": async ({ backend, anna }) => {
    const [staff, other] = [await backend.user("staff"), await backend.user("other")];
    await backend.promote(staff.id, "moderator");
    const { room } = await other.adapter.createRoom("Hall", "private", [anna.id]);
    await staff.adapter.banUser(other.id, 2);
    const { user } = await staff.adapter.getUserById(other.id);
    assert.equal(user.banned, true);
    assert.ok(Math.abs(Date.parse(user.ban_until) - Date.now() - 7_200_000) < 600_000);
    assert.ok(!(await other.adapter.getRooms()).rooms.some(({ id }) => id === room.id));
    await assert.rejects(other.adapter.sendMessage(room.id, "hm"), refused("banned"));
    for (const { id } of other.adapter.getPendingMessages()) other.adapter.discardMessage(id);
    await assert.rejects(other.adapter.getMessages(room.id, 10), refused("banned"));
    await staff.adapter.banUser(other.id);
    const { user: forEver } = await staff.adapter.getUserById(other.id);
    assert.deepEqual([forEver.banned, forEver.ban_until], [true, undefined]);
    await staff.adapter.unbanUser(other.id);
    assert.equal((await staff.adapter.getUserById(other.id)).user.banned, undefined);
  },
  "muteUser and unmuteUser by a moderator": async ({ backend }) => {
    const [staff, other] = [await backend.user("staff"), await backend.user("other")];
    await backend.promote(staff.id, "moderator");
    const { room } = await other.adapter.createRoom("Hall", "private");
    await staff.adapter.muteUser(other.id, 1);
    await assert.rejects(other.adapter.sendMessage(room.id, "hm"), refused("muted"));
    for (const { id } of other.adapter.getPendingMessages()) other.adapter.discardMessage(id);
    await staff.adapter.unmuteUser(other.id);
    assert.equal((await other.adapter.sendMessage(room.id, "again")).message.content, "again");
  },
  "blockUser keeps direct messages away, unblockUser lets them in": async ({ backend }) => {
    const [one, other] = [await backend.user("one"), await backend.user("other")];
    const { dm } = await one.adapter.createDirectMessage(other.id);
    await one.adapter.blockUser(other.id);
    await one.adapter.blockUser(other.id); // twice without harm
    assert.deepEqual((await one.adapter.getMe()).user.blocked_users, [other.id]);
    await assert.rejects(other.adapter.sendDMMessage(dm.id, "hello", "text"), refused("forbidden"));
    for (const { id } of other.adapter.getPendingMessages()) other.adapter.discardMessage(id);
    await one.adapter.unblockUser(other.id);
    await one.adapter.unblockUser(other.id);
    assert.equal((await other.adapter.sendDMMessage(dm.id, "hello", "text")).message.content, "hello");
  },
  "blockUser and unblockUser refuse strangers and guests": async ({ anna, guest }) => {
    await assert.rejects(anna.adapter.blockUser("nobody000000000"), refused("not_found"));
    await assert.rejects(guest.unblockUser(anna.id), refused("unauthorized"));
  },
};

const rooms = {
  // The backend chooses the id; a repeated call still makes no second room.
  "createRoom with members, once for an id": async ({ anna, boris, vera }) => {
    const id = `room${Date.now()}`;
    const made = await anna.adapter.createRoom("Twice", "private", [boris.id, vera.id], { id });
    const again = await anna.adapter.createRoom("Twice", "private", [boris.id, vera.id], { id });
    assert.deepEqual([again.room.id, again.room.member_count], [made.room.id, 3]);
  },
  // Public rooms are made by administrators only.
  "joinRoom joins a public room, twice without harm": async ({ backend, anna, vera }) => {
    await assert.rejects(anna.adapter.createRoom("Hall", "public"), refused("forbidden"));
    const admin = await backend.user("admin");
    await backend.promote(admin.id, "admin");
    const { room } = await admin.adapter.createRoom("Hall", "public");
    await vera.adapter.joinRoom(room.id);
    await vera.adapter.joinRoom(room.id);
    const { room: joined } = await vera.adapter.getRoom(room.id);
    assert.deepEqual([joined.my_role, joined.member_count], ["member", 2]);
    await vera.adapter.leaveRoom(room.id);
    assert.equal((await vera.adapter.getRoom(room.id)).room.my_role, undefined);
  },
  // The backend has no check here; the adapter has.
  "joinRoom refuses a private room": ({ vera, room }) =>
    assert.rejects(vera.adapter.joinRoom(room.id), refused("not_found")),
  // After the owner leaves, the room has no owner.
  "leaveRoom hands the room on": async ({ anna, boris }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
    await anna.adapter.leaveRoom(room.id);
    assert.equal((await boris.adapter.getRoom(room.id)).room.my_role, "member");
    await boris.adapter.leaveRoom(room.id);
    await assert.rejects(boris.adapter.getRoom(room.id), refused("not_found"));
  },
  "inviteToRoom lets in, and notifies": async ({ anna, vera }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private");
    await anna.adapter.inviteToRoom(room.id, vera.id);
    assert.equal((await vera.adapter.getRoom(room.id)).room.name, "Hall");
    const { notifications } = await vera.adapter.getNotifications();
    assert.ok(!notifications.some(({ roomId }) => roomId === room.id), "no notification of an invitation");
  },
  // Every member may invite.
  "inviteToRoom refuses members of a private room, and strangers": async ({ anna, boris, vera }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
    await assert.rejects(vera.adapter.inviteToRoom(room.id, vera.id), refused("forbidden"));
    await boris.adapter.inviteToRoom(room.id, vera.id);
    assert.equal((await vera.adapter.getRoom(room.id)).room.my_role, "member");
  },
  deleteRoom: async ({ anna }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private");
    await anna.adapter.deleteRoom(room.id);
    await assert.rejects(anna.adapter.getRoom(room.id), refused("not_found"));
    await assert.rejects(anna.adapter.getMessages(room.id, 10), refused("not_found"));
  },
  // Moderators, VIPs and administrators of the whole chat pin, not owners of rooms.
  "pinMessage and unpinMessage keep several pins": async ({ backend, anna, boris, room, message }) => {
    const { message: second } = await anna.adapter.sendMessage(room.id, "second");
    await backend.promote(anna.id, "vip");
    const pins = async () => {
      const { room: now } = await boris.adapter.getRoom(room.id);
      return [now.pinned_message_id, now.pinned_message_ids];
    };
    await anna.adapter.pinMessage(room.id, message.id);
    await anna.adapter.pinMessage(room.id, second.id);
    assert.deepEqual(await pins(), [second.id, [second.id, message.id]]);
    await anna.adapter.unpinMessage(room.id);
    assert.deepEqual(await pins(), [message.id, [message.id]]);
    await anna.adapter.unpinMessage(room.id, message.id);
    assert.deepEqual(await pins(), [undefined, []]);
    await backend.promote(anna.id, "user");
  },
  // A message of another room can be pinned.
  "pinMessage and unpinMessage refuse members, and messages of other rooms": async ({ boris, room, message }) => {
    await assert.rejects(boris.adapter.pinMessage(room.id, message.id), refused("forbidden"));
    await assert.rejects(boris.adapter.unpinMessage(room.id, message.id), refused("forbidden"));
  },
  // The backend answers "done" and does nothing.
  "markAsRead refuses a room of others": async ({ backend, vera, room }) => {
    const before = await backend.database.get(`room:${room.id}`);
    await vera.adapter.markAsRead(room.id);
    assert.deepEqual(await backend.database.get(`room:${room.id}`), before);
  },
  "members: roles and removal": async ({ anna, boris }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
    await assert.rejects(anna.adapter.setMemberRole(room.id, boris.id, "moderator"), unsupported);
    await assert.rejects(anna.adapter.removeMember(room.id, boris.id), unsupported);
    await boris.adapter.markAsRead(room.id);
    const { members } = await anna.adapter.getMembers(room.id);
    assert.deepEqual(
      members.map(({ user, role }) => [user.id, role]),
      [
        [anna.id, "owner"],
        [boris.id, "member"],
      ],
    );
    assert.equal(typeof members[1].last_read, "string");
  },
  "renameRoom and muteRoom": async ({ anna, room }) => {
    await assert.rejects(anna.adapter.renameRoom(room.id, "Garden"), unsupported);
    await assert.rejects(anna.adapter.muteRoom(room.id, true), unsupported);
  },
};

const messages = {
  "getMessages refuses a room of others": ({ vera, room }) =>
    assert.rejects(vera.adapter.getMessages(room.id, 10), refused("forbidden")),
  // The backend chooses the id; a repeated call still sends no second message.
  "sendMessage with an id is stored once": async ({ anna, room }) => {
    const id = "once0000000000a";
    const { message: first } = await anna.adapter.sendMessage(room.id, "once", "text", undefined, { id });
    const { message: again } = await anna.adapter.sendMessage(room.id, "once", "text", undefined, { id });
    assert.equal(again.id, first.id);
    assert.equal((await anna.adapter.searchMessages("once", { roomId: room.id })).messages.length, 1);
  },
  // A file is a message with the file's address; only pictures, sound and films are stored.
  "sendMessage with files": async ({ anna, boris, guest, room }) => {
    const { message } = await anna.adapter.sendMessage(room.id, "", "text", undefined, { files: [png()] });
    assert.equal(message.type, "image");
    const { message: seen } = await boris.adapter.getMessage(message.id);
    assert.equal((await bytes(seen.content)).toString("hex"), "89504e470d0a1a0a");
    await assert.rejects(
      anna.adapter.sendMessage(room.id, "and text", "text", undefined, { files: [png()] }),
      unsupported,
    );
    await assert.rejects(
      anna.adapter.sendMessage(room.id, "", "text", undefined, { files: [png(), png()] }),
      unsupported,
    );
    const text = new File(["content"], "plan.txt", { type: "text/plain" });
    await assert.rejects(
      anna.adapter.sendMessage(room.id, "", "file", undefined, { files: [text] }),
      refused("invalid"),
    );
    await assert.rejects(
      guest.sendMessage(room.id, "", "file", undefined, { files: [png()] }),
      refused("unauthorized"),
    );
    assert.deepEqual(await anna.adapter.getAttachmentUrl({ name: "me.png", url: message.content }), {
      url: message.content,
    });
  },
  // The address stands for the file: no name, no size.
  "files keep names in any alphabet, and sizes: in messages, events, lists and copies": async ({ anna, room }) => {
    const { message } = await anna.adapter.sendMessage(room.id, "", "text", undefined, { files: [png()] });
    assert.equal(message.attachments, undefined);
  },
  "forwardMessage copies content and files": async ({ anna, vera, room }) => {
    const { room: hall } = await anna.adapter.createRoom("Hall", "private", [vera.id]);
    const { message: source } = await anna.adapter.sendMessage(room.id, "see this");
    await anna.adapter.addReaction(source.id, "👍");
    const { message: copy } = await anna.adapter.forwardMessage(source.id, hall.id);
    assert.deepEqual([copy.content, copy.forwarded, copy.reactions], ["see this", undefined, {}]);
    await anna.adapter.deleteMessage(source.id);
    assert.equal((await vera.adapter.getMessage(copy.id)).message.content, "see this");
  },
};

const social = {
  // A rejected request can be sent again.
  "rejectFriendRequest ends a request for good": async ({ backend }) => {
    const [one, two] = [await backend.user("one"), await backend.user("two")];
    await one.adapter.sendFriendRequest(two.id);
    await assert.rejects(one.adapter.sendFriendRequest(two.id), refused("conflict"));
    const { requests } = await two.adapter.getFriendRequests();
    await two.adapter.rejectFriendRequest(requests[0].id);
    assert.deepEqual((await two.adapter.getFriendRequests()).requests, []);
    assert.deepEqual((await one.adapter.getFriendRequests()).requests, []);
    await one.adapter.sendFriendRequest(two.id);
    assert.equal((await two.adapter.getFriendRequests()).requests.length, 1);
  },
  "updatePublicKey refuses a key that is too long": async ({ vera }) => {
    await vera.adapter.updatePublicKey("x".repeat(9000));
    assert.equal((await vera.adapter.getMe()).user.public_key.length, 9000);
    await assert.rejects(vera.adapter.updatePublicKey(""), refused("invalid"));
  },
  // One key per user and room; a new key replaces the old.
  "saveRoomKeys and getRoomKey, with versions": async ({ anna, boris }) => {
    const { room } = await anna.adapter.createRoom("Secret", "private", [boris.id]);
    assert.deepEqual(await boris.adapter.getRoomKey(room.id), { encryptedKey: null });
    await anna.adapter.saveRoomKeys(room.id, { [anna.id]: "a1", [boris.id]: "b1" });
    assert.deepEqual(await anna.adapter.saveRoomKeys(room.id, { [boris.id]: "b2" }), { version: 1 });
    await assert.rejects(anna.adapter.saveRoomKeys(room.id, { [boris.id]: "b3" }, { version: 2 }), unsupported);
    assert.deepEqual(await boris.adapter.getRoomKey(room.id), { encryptedKey: "b2", version: 1 });
    assert.deepEqual((await boris.adapter.getRoomKeys(room.id)).keys, [{ encryptedKey: "b2", version: 1 }]);
    assert.equal((await boris.adapter.getMe()).user.room_keys[room.id], "b2");
  },
  "saveRoomKeys stores all keys or none, and refuses others": async ({ anna, boris, vera }) => {
    const { room } = await anna.adapter.createRoom("Secret", "private", [boris.id]);
    await assert.rejects(vera.adapter.saveRoomKeys(room.id, { [vera.id]: "v" }), refused("forbidden"));
    await assert.rejects(boris.adapter.saveRoomKeys(room.id, { [boris.id]: "b" }), refused("forbidden"));
    assert.deepEqual(await vera.adapter.getRoomKey(room.id), { encryptedKey: null });
    const { dm } = await anna.adapter.createDirectMessage(boris.id);
    await assert.rejects(anna.adapter.saveRoomKeys(dm.id, { [anna.id]: "a" }), unsupported);
  },
  // The backend checks no condition and knows no names.
  "unlockAchievement grants what the server finds earned": async ({ anna, boris }) => {
    await anna.adapter.unlockAchievement("first_message");
    await anna.adapter.unlockAchievement("first_message");
    const { achievements } = await boris.adapter.getAchievements({ userId: anna.id });
    const { name, rarity, unlocked_at } = achievements.find(({ id }) => id === "first_message");
    assert.deepEqual([name, rarity, typeof unlocked_at], ["First word", "common", "string"]);
  },
  "unlockAchievement refuses what is not earned, what the server cannot check, and unknown ones": async ({
    vera,
    guest,
  }) => {
    await assert.rejects(guest.unlockAchievement("magnet"), refused("unauthorized"));
    await assert.rejects(vera.adapter.unlockAchievement(""), refused("invalid"));
    await vera.adapter.unlockAchievement("no-such");
    const found = (await vera.adapter.getAchievements()).achievements.find(({ id }) => id === "no-such");
    assert.deepEqual([found.name, found.max_progress], ["no-such", 1]);
  },
  "getAchievements refuses a guest and strangers": async ({ anna, guest }) => {
    await assert.rejects(guest.getAchievements(), refused("unauthorized"));
    const { achievements } = await anna.adapter.getAchievements({ userId: "nobody000000000" });
    assert.ok(achievements.every(({ unlocked_at }) => unlocked_at === undefined));
  },
  "createPoll, votePoll, getPoll": async ({ anna, boris, room }) => {
    const { poll } = await anna.adapter.createPoll(room.id, "When?", ["Monday", "Friday"]);
    const { poll: voted } = await boris.adapter.votePoll(poll.id, 1);
    assert.deepEqual([voted.my_vote, voted.room_id], [1, room.id]);
    await boris.adapter.votePoll(poll.id, 1); // the same again, without harm
    await assert.rejects(boris.adapter.votePoll(poll.id, 0), unsupported);
    await assert.rejects(boris.adapter.votePoll(poll.id, null), unsupported);
    const { poll: now } = await anna.adapter.getPoll(poll.id);
    assert.deepEqual(
      now.options.map(({ count, votes }) => [count, votes]),
      [
        [0, []],
        [1, [boris.id]],
      ],
    );
    assert.equal((await boris.adapter.getMessage(poll.message_id)).message.type, "poll");
  },
  "getNotifications, markNotificationAsRead, deleteNotification": async ({ backend, guest }) => {
    const [one, two] = [await backend.user("one"), await backend.user("two")];
    await one.adapter.sendFriendRequest(two.id);
    const { notifications, cursor } = await two.adapter.getNotifications({ limit: 10 });
    assert.deepEqual(
      notifications.map(({ type, read, fromUserId }) => [type, read, fromUserId]),
      [["friend_request", false, one.id]],
    );
    assert.equal(cursor, null);
    await two.adapter.markNotificationAsRead(notifications[0].id);
    assert.equal((await two.adapter.getNotifications()).notifications[0].read, true);
    await assert.rejects(one.adapter.markNotificationAsRead(notifications[0].id), refused("forbidden"));
    await assert.rejects(one.adapter.deleteNotification(notifications[0].id), refused("forbidden"));
    await two.adapter.deleteNotification(notifications[0].id);
    assert.deepEqual((await two.adapter.getNotifications()).notifications, []);
    await assert.rejects(guest.getNotifications(), refused("unauthorized"));
  },
  // The backend chooses the path, keeps every file and signs once.
  "uploadFile, getFileUrl, deleteFile; a path holds one file": async ({ anna }) => {
    const { url, path } = await anna.adapter.uploadFile(png(), `${anna.id}/pictures/me.png`);
    assert.match(path, new RegExp(`^${anna.id}/.*\\.png$`));
    assert.equal((await bytes(url)).toString("hex"), "89504e470d0a1a0a");
    await assert.rejects(anna.adapter.getFileUrl(path), unsupported);
    await assert.rejects(anna.adapter.deleteFile(path), unsupported);
  },
  "uploadFile, getFileUrl, deleteFile refuse others": async ({ anna, guest }) => {
    await assert.rejects(guest.uploadFile(png(), "x/me.png"), refused("unauthorized"));
    const text = new File(["x"], "x.txt", { type: "text/plain" });
    await assert.rejects(anna.adapter.uploadFile(text, "x/x.txt"), refused("invalid"));
  },
};

const realtime = {
  // The stored message has a new id, and the pending message disappears.
  "subscribeToRoom shows the own message pending, then stored": async ({ anna }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private");
    const [seen, gone] = [collector(), collector()];
    const end = anna.adapter.subscribeToRoom(room.id, seen, { onDelete: gone });
    const { message: sent } = await anna.adapter.sendMessage(room.id, "mine");
    await seen.until(({ id }) => id === sent.id, "the stored message");
    assert.equal(seen.seen[0].state, "pending");
    assert.deepEqual(gone.seen, [seen.seen[0].id]);
    assert.deepEqual(contents(await anna.adapter.getMessages(room.id, 10)), ["mine"]);
    end();
  },
  // The backend knows online and offline.
  "subscribeToUserStatus follows setStatus; an invisible user looks offline": async ({ backend, anna }) => {
    const other = await backend.user("other");
    const states = collector();
    const end = anna.adapter.subscribeToUserStatus(other.id, (status) => states(status));
    await states.until((status) => status === "online", "online");
    for (const mode of ["away", "dnd", "invisible"]) await assert.rejects(other.adapter.setStatus(mode), unsupported);
    await other.adapter.setStatus("online");
    assert.deepEqual(await other.adapter.getStatus(), { mode: "online" });
    await other.adapter.signout();
    await states.until((status) => status === "offline", "offline after the log-out");
    const { statuses } = await anna.adapter.getStatuses([other.id, anna.id]);
    assert.deepEqual([statuses[other.id].status, statuses[anna.id].status], ["offline", "online"]);
    end();
  },
  "subscribeToRoomUpdates keeps the list: invitation, counts, read mark, removal": async ({ backend }) => {
    const [owner, member] = [await backend.user("owner"), await backend.user("member")];
    const lists = collector();
    const end = member.adapter.subscribeToRoomUpdates(lists);
    await lists.until(Boolean, "the first list");
    const { room } = await owner.adapter.createRoom("Club", "private", [member.id]);
    const has = (test) => (rooms) => rooms.some((each) => each.id === room.id && test(each));
    await lists.until(
      has(() => true),
      "the invitation",
    );
    await owner.adapter.sendMessage(room.id, `hello @${member.username}`);
    const counted = ({ unread_count, unread_mentions, last_message }) =>
      unread_count[member.id] === 1 && unread_mentions[member.id] === 1 && last_message?.content.startsWith("hello");
    await lists.until(has(counted), "one unread message with a mention");
    await member.adapter.markAsRead(room.id);
    await until(
      () =>
        has(({ unread_count, unread_mentions }) => unread_count[member.id] + unread_mentions[member.id] === 0)(
          lists.seen.at(-1),
        ),
      "the read mark",
      20_000,
    );
    await backend.change(`room:${room.id}`, { members: [owner.id] });
    await until(() => !has(() => true)(lists.seen.at(-1)), "the removal", 20_000);
    end();
  },
  "removed and added again, a subscribed room goes on by itself": async ({ backend, anna, boris }) => {
    const { room } = await anna.adapter.createRoom("Hall", "private", [boris.id]);
    const [seen, closed, resyncs, ready] = [collector(), collector(), collector(), collector()];
    const handlers = { onClosed: closed, onResync: resyncs, onReady: () => ready(true) };
    const end = boris.adapter.subscribeToRoom(room.id, seen, handlers);
    await ready.until(Boolean, "the subscription");
    await backend.change(`room:${room.id}`, { members: [anna.id] });
    await closed.until(({ code }) => code === 2100, "the removal");
    await anna.adapter.sendMessage(room.id, "unheard");
    await anna.adapter.inviteToRoom(room.id, boris.id);
    await resyncs.until(Boolean, "the word to load again");
    await until(() => ready.seen.length > 1, "the second subscription", 20_000);
    const { message: sent } = await anna.adapter.sendMessage(room.id, "welcome back");
    await seen.until(({ id }) => id === sent.id, "a message after the return");
    end();
  },
  "sendTyping and presence": async ({ anna, room }) => {
    const errors = collector();
    const end = anna.adapter.subscribeToRoom(room.id, () => {}, { onError: errors });
    for (let i = 0; i < 3; i++) anna.adapter.sendTyping(room.id);
    assert.deepEqual(
      errors.seen.map(({ code, method }) => [code, method]),
      [["unsupported", "sendTyping"]],
      "told once",
    );
    await assert.rejects(anna.adapter.presence(room.id), unsupported);
    end();
  },
};

const accounts = {
  // The backend takes no request back.
  "a request that is taken back takes its notification along": async ({ backend }) => {
    const [one, two] = [await backend.user("one"), await backend.user("two")];
    await one.adapter.sendFriendRequest(two.id);
    await assert.rejects(one.adapter.removeFriend(two.id), refused("not_found"));
    assert.equal((await two.adapter.getNotifications()).notifications.length, 1);
  },
  "changePassword ends other logins and keeps this one": ({ anna, backend }) =>
    assert.rejects(anna.adapter.changePassword(backend.password, "a-new-password"), unsupported),
  "changePassword refuses a wrong old password and a short new one": async ({ anna }) => {
    await assert.rejects(anna.adapter.changeEmail("x@example.com"), unsupported);
    await assert.rejects(anna.adapter.confirmEmailChange("token", "password"), unsupported);
  },
  "deleteUser deletes the own account; messages stay, rooms get another owner": async ({ anna }) => {
    await assert.rejects(anna.adapter.deleteUser(anna.id), unsupported);
    assert.equal(anna.adapter.currentUserId(), anna.id);
  },
  "deleteUser by an admin, and refused for others": ({ anna, boris }) =>
    assert.rejects(anna.adapter.deleteUser(boris.id), unsupported),
  "sendTyping tells nobody about a user who may not see the room": ({ vera, room }) => vera.adapter.sendTyping(room.id),
};

export const differences = { ...users, ...rooms, ...messages, ...social, ...realtime, ...accounts };
