// Friends, notifications, achievements, polls, keys, files.

import {
  BackendError,
  ConflictError,
  ForbiddenError,
  InvalidError,
  NotFoundError,
  UnsupportedError,
} from "../errors.js";
import type {
  AchievementsModule,
  CallOptions,
  EncryptionModule,
  FriendRequest,
  FriendsModule,
  NotificationsModule,
  PollsModule,
  StorageModule,
} from "../interface.js";
import { text } from "../modules/people.js";
import type { KeyValueStorage } from "../modules/context.js";
import { segment, type Client } from "./client.js";
import type { MessageReader } from "./messages.js";
import type { People } from "./people.js";
import {
  requestId,
  requestOf,
  row,
  rows,
  texts,
  toAchievement,
  toMessage,
  toNotification,
  toPoll,
  toUser,
  type AchievementDefinition,
  type Row,
} from "./records.js";
import { isDirect } from "./rooms.js";

/** Storage key of the receivers of sent requests; the backend has no list of sent requests. */
const REQUESTED = "konvert.requested.";
/** Most remembered receivers. */
const MOST_REQUESTED = 50;

export function partiesOf(id: string): { from: string; to: string } | null {
  const [kind, from, to] = id.split(":");
  return kind === "friend_request" && from && to ? { from, to } : null;
}

export async function notificationRows(client: Client, options?: CallOptions): Promise<Row[]> {
  const answer = await client.get<Row>("/notifications", options);
  return rows(answer.notifications).filter(({ id }) => text(id) !== "");
}

export function friendsModule(client: Client, people: People, storage: KeyValueStorage): FriendsModule {
  const requested = (): string[] => {
    try {
      return Object.keys(texts(JSON.parse(storage.getItem(REQUESTED + client.me()) ?? "{}")));
    } catch {
      return [];
    }
  };
  const setRequested = (userIds: string[]) => {
    try {
      storage.setItem(
        REQUESTED + client.me(),
        JSON.stringify(Object.fromEntries(userIds.slice(-MOST_REQUESTED).map((id) => [id, "sent"]))),
      );
    } catch {
      // storage is full or forbidden: the own requests are not listed
    }
  };

  /** Requests to the caller, from the notifications. */
  async function incoming(options?: CallOptions): Promise<FriendRequest[]> {
    const me = client.me();
    const notes = (await notificationRows(client, options)).filter((note) => requestOf(note) !== null);
    const self = (await people.one(me, options)).user;
    const users = await people.many(notes.map(({ fromUserId }) => text(fromUserId)));
    const requests = new Map<string, FriendRequest>();
    for (const note of notes) {
      const [id, from] = [requestOf(note) ?? "", users.get(text(note.fromUserId))];
      if (!from || self.friends?.includes(from.id)) continue; // accepted already, or the account is gone
      requests.set(id, { id, from, to: self, status: "pending", created_at: text(note.createdAt) });
    }
    return [...requests.values()];
  }

  async function outgoing(options?: CallOptions): Promise<FriendRequest[]> {
    const me = client.me();
    const open: FriendRequest[] = [];
    const still: string[] = [];
    for (const userId of requested()) {
      const { pending } = await client.get<Row>(`/friend-requests/${segment(userId)}/check`, options);
      if (pending !== true) continue;
      still.push(userId);
      const users = await people.many([me, userId]);
      const [from, to] = [users.get(me), users.get(userId)];
      if (from && to) open.push({ id: requestId(me, userId), from, to, status: "pending", created_at: "" });
    }
    setRequested(still);
    return open;
  }

  /** The backend leaves the notification of a rejected request. */
  async function dropNotification(id: string, options?: CallOptions): Promise<void> {
    for (const note of await notificationRows(client, options)) {
      if (requestOf(note) === id) await client.delete(`/notifications/${segment(text(note.id))}`, options);
    }
  }

  /** The caller answers requests to the caller. */
  function checkReceiver(id: string): void {
    const [me, parties] = [client.me(), partiesOf(id)];
    if (!parties || (parties.from !== me && parties.to !== me)) throw new NotFoundError("No such request.");
    if (parties.to !== me) throw new ForbiddenError("Only the other user can answer this request.");
  }

  return {
    async getFriends(options) {
      const answer = await client.get<Row>("/users/friends/list", options);
      return { users: rows(answer.friends).map((raw) => toUser(raw, false)) };
    },
    async sendFriendRequest(userId, options) {
      await client.post(`/friend-requests/${segment(userId)}`, {}, options);
      setRequested([...requested().filter((id) => id !== userId), userId]);
      people.clear();
    },
    async acceptFriendRequest(id, options) {
      checkReceiver(id);
      await client.post(`/friend-requests/${segment(id)}/accept`, {}, options);
      people.clear();
    },
    async rejectFriendRequest(id, options) {
      checkReceiver(id);
      await client.post(`/friend-requests/${segment(id)}/reject`, {}, options);
      await dropNotification(id, options);
    },
    async removeFriend(userId, options) {
      await client.delete(`/users/${segment(userId)}/friend`, options);
      people.clear();
    },
    async getFriendRequests(options) {
      const [to, from] = [await incoming(options), await outgoing(options)];
      return { requests: [...to, ...from] };
    },
  };
}

export function notificationsModule(client: Client): NotificationsModule {
  return {
    async getNotifications(options = {}) {
      const all = await notificationRows(client, options); // the backend keeps the last hundred
      const start = options.before === undefined ? 0 : all.findIndex(({ id }) => id === options.before) + 1;
      if (start === 0 && options.before !== undefined)
        throw new InvalidError("before: not a cursor of an earlier page.");
      const size = Math.max(1, Math.min(options.limit ?? 50, 500));
      const page = all.slice(start, start + size);
      const last = start + size < all.length ? page.at(-1) : undefined;
      return { notifications: page.map(toNotification), cursor: last ? text(last.id) : null };
    },
    async markNotificationAsRead(id, options) {
      await client.post(`/notifications/${segment(id)}/read`, {}, options);
    },
    async deleteNotification(id, options) {
      await client.delete(`/notifications/${segment(id)}`, options);
    },
  };
}

export function achievementsModule(client: Client, definitions: readonly AchievementDefinition[]): AchievementsModule {
  return {
    async getAchievements(options) {
      const answer = await client.get<Row>(`/achievements/${segment(options?.userId ?? client.me())}`, options);
      const progress = row(answer.achievements);
      const known = new Map(definitions.map((definition) => [definition.id, definition]));
      const ids = new Set([...known.keys(), ...Object.keys(progress)]);
      return { achievements: [...ids].map((id) => toAchievement(row(progress[id]), id, known.get(id))) };
    },
    /** The backend does not check the condition. */
    async unlockAchievement(achievementId, options) {
      if (!achievementId) throw new InvalidError("No achievement named.");
      await client.post(`/achievements/${segment(client.me())}/unlock`, { achievementId }, options);
    },
  };
}

export function pollsModule(client: Client, reader: MessageReader, changed: (roomId: string) => void): PollsModule {
  const shape = (raw: Row, roomId: string) => ({ poll: toPoll(raw, client.me(), roomId) });
  /** Room of a poll; a poll has the id of its message. The backend checks no membership. */
  const roomOf = async (pollId: string, options?: CallOptions) =>
    (reader.known(pollId) ?? (await reader.one(pollId, options))).room_id;
  const read = async (pollId: string, options?: CallOptions) => {
    const roomId = await roomOf(pollId, options);
    return shape(row((await client.get<Row>(`/polls/${segment(pollId)}`, options)).poll), roomId);
  };

  return {
    async createPoll(roomId, question, options, anonymous = false, call) {
      if (isDirect(roomId))
        throw new UnsupportedError("createPoll", "the old backend has no polls in direct conversations.");
      const texts = options.map((option) => option.trim()).filter(Boolean);
      if (!question.trim() || texts.length < 2) throw new InvalidError("A poll needs a question and two options.");
      const answer = await client.post<Row>("/polls", { roomId, question, options: texts, anonymous }, call);
      reader.remember(toMessage(row(answer.message)));
      changed(roomId);
      return shape(row(answer.poll), roomId);
    },
    getPoll: read,
    async votePoll(pollId, optionIndex, options) {
      if (optionIndex === null) throw new UnsupportedError("votePoll", "the old backend cannot withdraw a vote.");
      const roomId = await roomOf(pollId, options);
      try {
        return shape(await client.post<Row>(`/polls/${segment(pollId)}/vote`, { optionIndex }, options), roomId);
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error;
        const present = await read(pollId, options);
        if (present.poll.my_vote === optionIndex) return present;
        throw new UnsupportedError("votePoll", "the old backend cannot change a vote.", { cause: error });
      }
    },
  };
}

export function encryptionModule(client: Client): EncryptionModule {
  /** The backend stores one key per user and room: version 1. */
  const keyOf = async (roomId: string, options?: CallOptions) =>
    text((await client.get<Row>(`/rooms/${segment(roomId)}/key`, options)).encryptedKey);

  return {
    async updatePublicKey(publicKey, options) {
      await client.put("/users/public-key", { publicKey }, options);
    },
    async getRoomKey(roomId, options) {
      const encryptedKey = await keyOf(roomId, options);
      return encryptedKey ? { encryptedKey, version: 1 } : { encryptedKey: null };
    },
    async getRoomKeys(roomId, options) {
      const encryptedKey = await keyOf(roomId, options);
      return { keys: encryptedKey ? [{ encryptedKey, version: 1 }] : [] };
    },
    async saveRoomKeys(roomId, encryptedKeys, options) {
      if (isDirect(roomId))
        throw new UnsupportedError("saveRoomKeys", "the old backend has no keys for direct conversations.");
      if (options?.version !== undefined && options.version !== 1) {
        throw new UnsupportedError(
          "saveRoomKeys",
          "the old backend keeps one key of a user for a room, without versions.",
        );
      }
      await client.post(`/rooms/${segment(roomId)}/keys`, { encryptedKeys }, options);
      return { version: 1 };
    },
  };
}

export async function upload(
  client: Client,
  file: File,
  options?: CallOptions,
): Promise<{ url: string; path: string }> {
  const form = new FormData();
  form.append("file", file, file.name);
  const answer = await client.post<Row>("/storage/upload", form, options);
  const [url, path] = [text(answer.url), text(answer.path)];
  if (!url) throw new BackendError("server", "The backend stored no file.");
  return { url, path };
}

export function storageModule(client: Client): StorageModule {
  return {
    /** The backend chooses the path; only the file extension of `path` is used. */
    async uploadFile(file, path, options) {
      const name = path.split("/").at(-1) || file.name;
      return upload(client, new File([file], name, { type: file.type }), options);
    },
    async deleteFile() {
      throw new UnsupportedError("deleteFile", "the old backend has no route that deletes files.");
    },
    async getFileUrl() {
      throw new UnsupportedError("getFileUrl", "the old backend has no route that signs addresses.", {
        action: "Keep the address that uploadFile gives; it is good for a year.",
      });
    },
  };
}
