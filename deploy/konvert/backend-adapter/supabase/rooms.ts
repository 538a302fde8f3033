// Rooms, direct conversations and members.

import { InvalidError, NotFoundError, UnsupportedError } from "../errors.js";
import type {
  CallOptions,
  DirectMessage,
  DirectMessagesModule,
  Message,
  MessagesModule,
  Room,
  RoomsModule,
} from "../interface.js";
import { present, type KeyValueStorage } from "../modules/context.js";
import { list, text } from "../modules/people.js";
import { segment, type Client } from "./client.js";
import type { People } from "./people.js";
import { directAsRoom, row, rows, texts, toDirect, toRoom, type Row } from "./records.js";

/** Storage key of hidden direct conversations; the backend has no such list. */
const HIDDEN = "konvert.hidden.";

/** Most rooms whose chosen ids are remembered. */
const MOST_CREATED = 1000;

/** Ids of direct conversations are two user ids with a colon between. */
export function isDirect(roomId: string): boolean {
  return roomId.includes(":");
}

/** All rooms of the caller, with the read marks of all members. */
export interface Snapshot {
  rooms: Room[];
  readMarks: Map<string, Record<string, string>>;
}

export class RoomReader {
  constructor(
    private readonly client: Client,
    private readonly people: People,
    private readonly storage: KeyValueStorage,
  ) {}

  async snapshot(options?: CallOptions): Promise<Snapshot> {
    const me = this.client.me();
    const [rooms, directs] = await Promise.all([this.client.get<Row>("/rooms", options), this.directRows(options)]);
    const raw = rows(rooms.rooms).filter(({ id, deleted }) => text(id) !== "" && deleted !== true);
    const others = raw.map((room) =>
      room.type === "dm" ? list(room.dm_participants).find((id) => id !== me) : undefined,
    );
    const users = await this.people.many(
      [...others, ...directs.map(({ other }) => other)].filter((id) => id !== undefined),
    );
    const nameOf = (id: string | undefined) =>
      id === undefined ? undefined : (users.get(id)?.display_name ?? users.get(id)?.username);
    const shown = [
      ...raw.map((room, index) => toRoom(room, me, nameOf(others[index]))),
      ...directs
        .filter(({ other }) => users.has(other))
        .map(({ raw: direct, other }) => directAsRoom(direct, me, nameOf(other) ?? "")),
    ];
    const readMarks = new Map(
      [...raw, ...directs.map(({ raw: direct }) => direct)].map((room) => [text(room.id), texts(room.last_read)]),
    );
    return { rooms: shown.sort((a, b) => b.last_activity.localeCompare(a.last_activity)), readMarks };
  }

  async one(roomId: string, options?: CallOptions): Promise<{ room: Room; readMarks: Record<string, string> }> {
    const { rooms, readMarks } = await this.snapshot(options);
    const room = rooms.find(({ id }) => id === roomId);
    if (!room) throw new NotFoundError("No such room.");
    return { room, readMarks: readMarks.get(roomId) ?? {} };
  }

  async directs(options?: CallOptions): Promise<DirectMessage[]> {
    const me = this.client.me();
    const found = await this.directRows(options);
    const users = await this.people.many(found.map(({ other }) => other));
    return found.flatMap(({ raw, other }) => {
      const user = users.get(other);
      return user ? [toDirect(raw, me, user)] : []; // the other account is gone
    });
  }

  /** Visible conversations. A hidden conversation comes back with its next message. */
  private async directRows(options?: CallOptions): Promise<{ raw: Row; other: string }[]> {
    const me = this.client.me();
    const answer = await this.client.get<Row>("/dm/list", options);
    const hidden = this.hidden();
    return rows(answer.dms).flatMap((raw) => {
      const other = list(raw.participants).find((id) => id !== me);
      const at = hidden[text(raw.id)];
      const last = text(raw.last_activity) || text(raw.created_at);
      return other && !(at !== undefined && at >= last) ? [{ raw, other }] : [];
    });
  }

  hide(dmId: string, until: string): void {
    try {
      this.storage.setItem(HIDDEN + this.client.me(), JSON.stringify({ ...this.hidden(), [dmId]: until }));
    } catch {
      // storage is full or forbidden: the conversation stays in the list
    }
  }

  unhide(dmId: string): void {
    const { [dmId]: was, ...others } = this.hidden();
    if (was !== undefined) this.storage.setItem(HIDDEN + this.client.me(), JSON.stringify(others));
  }

  private hidden(): Record<string, string> {
    try {
      return texts(JSON.parse(this.storage.getItem(HIDDEN + this.client.me()) ?? "{}"));
    } catch {
      return {};
    }
  }
}

/** Receiver of the caller's changes, to refresh before the next poll. */
export interface RoomChanges {
  changed(roomId: string): void;
  joined(roomId: string): void;
  left(roomId: string): void;
}

export function roomsModule(client: Client, people: People, reader: RoomReader, changes: RoomChanges): RoomsModule {
  const path = (roomId: string, rest = "") => `/rooms/${segment(roomId)}${rest}`;

  /** Ids of created rooms by the id chosen by the caller, since the backend chooses ids. */
  const created = new Map<string, string>();

  function unsupported(method: string, why: string): () => Promise<never> {
    return () => Promise.reject(new UnsupportedError(method, why));
  }

  /** Refuses direct conversations, where the backend has no route. */
  function noDirect(method: string, roomId: string): void {
    if (isDirect(roomId))
      throw new UnsupportedError(method, "the old backend cannot do this in a direct conversation.");
  }

  async function change(roomId: string, work: Promise<unknown>): Promise<void> {
    await work;
    changes.changed(roomId);
  }

  /** Invites members into a new room; a failed invitation deletes the room. */
  async function inviteAll(roomId: string, userIds: string[], options?: CallOptions): Promise<void> {
    try {
      for (const userId of userIds) await client.post(path(roomId, "/invite"), { userId }, options);
    } catch (error) {
      await client.delete(path(roomId)).catch(() => {}); // the first error counts
      throw error;
    }
  }

  return {
    getRooms: async (options) => ({ rooms: (await reader.snapshot(options)).rooms }),
    getRoom: async (roomId, options) => ({ room: (await reader.one(roomId, options)).room }),

    async createRoom(name, type, memberIds = [], options) {
      const me = client.me();
      const before = options?.id ? created.get(options.id) : undefined;
      if (before) return { room: (await reader.one(before, options)).room };
      if (type !== "dm" && !name.trim()) throw new InvalidError("A room needs a name.");
      if (type === "dm") {
        const made = await client.post<Row>("/dm/create", { userId: memberIds.find((id) => id !== me) ?? "" }, options);
        reader.unhide(text(made.id));
        changes.changed(text(made.id));
        return { room: (await reader.one(text(made.id), options)).room };
      }
      const made = await client.post<Row>("/rooms", { name, type }, options);
      const invited = [...new Set(memberIds)].filter((id) => id !== me);
      await inviteAll(text(made.id), invited, options);
      if (options?.id && created.size < MOST_CREATED) created.set(options.id, text(made.id));
      changes.changed(text(made.id));
      return { room: (await reader.one(text(made.id), options)).room };
    },

    renameRoom: unsupported("renameRoom", "the old backend cannot rename rooms."),

    async joinRoom(roomId, options) {
      noDirect("joinRoom", roomId);
      // The backend checks nothing here, even for private rooms; the list contains visible rooms only.
      await reader.one(roomId, options);
      await client.post(path(roomId, "/join"), {}, options);
      changes.joined(roomId);
    },

    async leaveRoom(roomId, options) {
      noDirect("leaveRoom", roomId);
      const { room } = await reader.one(roomId, options);
      if (!room.my_role) throw new NotFoundError("Not a member of this room.");
      // Before the request, since a poll of a public room would join again.
      changes.left(roomId);
      try {
        await client.post(path(roomId, "/leave"), {}, options);
      } catch (error) {
        changes.joined(roomId);
        throw error;
      }
    },

    async inviteToRoom(roomId, userId, options) {
      noDirect("inviteToRoom", roomId);
      await change(roomId, client.post(path(roomId, "/invite"), { userId }, options));
    },

    async deleteRoom(roomId, options) {
      if (!isDirect(roomId)) return change(roomId, client.delete(path(roomId), options));
      const { room } = await reader.one(roomId, options);
      reader.hide(roomId, room.last_activity);
      changes.changed(roomId);
    },

    async pinMessage(roomId, messageId, options) {
      noDirect("pinMessage", roomId);
      await change(roomId, client.post(path(roomId, "/pin"), { messageId }, options));
    },

    async unpinMessage(roomId, messageId, options) {
      noDirect("unpinMessage", roomId);
      // Without an id the backend answers "ok" and does nothing.
      const pin = messageId ?? (await reader.one(roomId, options)).room.pinned_message_id;
      if (!pin) throw new NotFoundError("Nothing is pinned in this room.");
      await change(roomId, client.delete(path(roomId, `/pin/${segment(pin)}`), options));
    },

    async markAsRead(roomId, clearMentions = true, clearReactions = true, options) {
      const work = isDirect(roomId)
        ? client.post(`/dm/${segment(roomId)}/read`, {}, options)
        : client.post(path(roomId, "/mark-read"), { clearMentions, clearReactions }, options);
      await change(roomId, work);
    },

    async getMembers(roomId, options) {
      const { room, readMarks } = await reader.one(roomId, options);
      const users = await people.many(room.members);
      const members = room.members.flatMap((id) => {
        const user = users.get(id);
        const role = id === room.created_by ? ("owner" as const) : ("member" as const);
        return user ? [present({ user, role, last_read: readMarks[id], joined_at: room.created_at })] : [];
      });
      return { members };
    },

    removeMember: unsupported("removeMember", "the old backend cannot remove members from a room."),
    setMemberRole: unsupported("setMemberRole", "the old backend has no roles within a room."),
    muteRoom: unsupported("muteRoom", "the old backend cannot mute a room."),

    async getOrCreateFavorites(options) {
      const made = await client.post<Row>("/rooms/favorites", {}, options);
      return { room: toRoom(row(made), client.me()) };
    },
  };
}

export function directMessagesModule(
  client: Client,
  reader: RoomReader,
  messages: Pick<MessagesModule, "getMessages" | "sendMessage">,
  changes: RoomChanges,
): DirectMessagesModule {
  async function find(dmId: string, options?: CallOptions): Promise<DirectMessage> {
    const dm = (await reader.directs(options)).find(({ id }) => id === dmId);
    if (!dm) throw new NotFoundError("No such direct conversation.");
    return dm;
  }

  return {
    getDirectMessages: async (options) => ({ dms: await reader.directs(options) }),

    async createDirectMessage(userId, options) {
      const made = await client.post<Row>("/dm/create", { userId }, options);
      reader.unhide(text(made.id));
      changes.changed(text(made.id));
      return { dm: await find(text(made.id), options) };
    },

    getDMMessages: (dmId, page, options) => messages.getMessages(dmId, page, options),

    sendDMMessage(dmId, content, type, options = {}): Promise<{ message: Message }> {
      const { replyTo, ...rest } = options;
      return messages.sendMessage(dmId, content, type, replyTo, rest);
    },

    /**
     * Hides the conversation on this device. The backend's route is unused: its code means to delete the messages of
     * both users, and the list shows hidden conversations all the same.
     */
    async hideDirectMessage(dmId, options) {
      const dm = await find(dmId, options);
      reader.hide(dmId, dm.last_activity);
      changes.changed(dmId);
    },
  };
}
