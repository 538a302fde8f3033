// Rooms and members.

import type { RecordModel } from "pocketbase";
import type {
  CallOptions,
  DirectMessagesModule,
  DirectMessage,
  LastMessage,
  MemberRole,
  Message,
  MessagesModule,
  MessageType,
  Room,
  RoomsModule,
} from "../interface.js";
import { ConflictError, NotFoundError } from "../errors.js";
import { pair } from "./auth.js";
import { date, present, quoted, type Context } from "./context.js";
import { filesOf } from "./messages.js";
import { text, type People } from "./people.js";

interface Last {
  id: string;
  content: string;
  type: MessageType;
  author: string;
  username: string;
  created: string;
  files?: unknown;
  file_notes?: unknown;
}

/** One entry of GET /api/konvert/summary. */
interface Summary {
  room: string;
  role: MemberRole;
  last_read: string;
  muted: boolean;
  hidden_at: string;
  unread: number;
  mentions: number;
  reactions: number;
  last: Last | null;
  members: string[];
  count: number;
  pins: string[];
}

interface Summaries {
  rooms: Summary[];
  counts: Record<string, number>;
}

/** Name of favourites that the user has not renamed. */
const FAVORITES = { en: "Favourites", ru: "Избранное" };

/** Reader of rooms, for the methods and for the live list. */
export class RoomReader {
  constructor(
    private readonly context: Context,
    private readonly people: People,
  ) {}

  async all(options?: CallOptions): Promise<Room[]> {
    const [records, summaries] = await Promise.all([
      this.context.call(options, (request) => this.context.collection("rooms").getFullList({ ...request, batch: 500 })),
      this.context.route<Summaries>("GET", "summary", undefined, options),
    ]);
    return this.merge(records, summaries);
  }

  /** One room; `null` if the caller does not see it. */
  async one(roomId: string, options?: CallOptions): Promise<Room | null> {
    try {
      const [record, summaries] = await Promise.all([
        this.context.call(options, (request) => this.context.collection("rooms").getOne(roomId, request)),
        this.context.route<Summaries>("GET", `summary?room=${encodeURIComponent(roomId)}`, undefined, options),
      ]);
      return (await this.merge([record], summaries))[0] ?? null;
    } catch (error) {
      if (error instanceof NotFoundError) return null;
      throw error;
    }
  }

  private async merge(records: RecordModel[], { rooms, counts }: Summaries): Promise<Room[]> {
    const summaries = new Map(rooms.map((summary) => [summary.room, summary]));
    const me = this.context.me();
    const others = records.flatMap(({ id, type }) => (type === "direct" ? (summaries.get(id)?.members ?? []) : []));
    const users = await this.people.many(others);
    return records
      .filter(({ deleted }) => deleted !== true)
      .map((record) => this.toRoom(record, summaries.get(record.id), counts[record.id], me, (id) => users.get(id)))
      .filter((room) => !hidden(room, summaries.get(room.id)))
      .sort((a, b) => b.last_activity.localeCompare(a.last_activity));
  }

  private toRoom(
    record: RecordModel,
    summary: Summary | undefined,
    count: number | undefined,
    me: string,
    user: (id: string) => { display_name?: string; username: string } | undefined,
  ): Room {
    const isDirect = record.type === "direct";
    const name = text(record.name) || (record.favorites === true ? FAVORITES[this.context.language] : "");
    const members = summary?.members ?? [];
    const other = isDirect ? members.find((id) => id !== me) : undefined;
    const shown = other ? user(other) : undefined;
    const avatar = text(record.avatar);
    const created = date(record.created) ?? "";
    const pins = summary?.pins ?? [];
    const pinned = text(record.pinned_message);
    return present({
      id: record.id,
      name: isDirect ? (shown?.display_name ?? shown?.username ?? "") : name,
      type: isDirect ? "dm" : (text(record.type) as Room["type"]),
      created_by: text(record.owner),
      created_at: created,
      members: summary && members.length < summary.count && !members.includes(me) ? [me, ...members] : members,
      member_count: summary?.count ?? count ?? 0,
      my_role: summary?.role,
      avatar_url: avatar ? this.context.pocketbase.files.getURL(record, avatar) : undefined,
      pinned_message_id: pinned || undefined,
      pinned_message_ids: pinned && !pins.includes(pinned) ? [pinned, ...pins] : pins,
      is_favorites: record.favorites === true ? true : undefined,
      dm_participants: isDirect ? members : undefined,
      unread_mentions: { [me]: summary?.mentions ?? 0 },
      unread_reactions: { [me]: summary?.reactions ?? 0 },
      unread_count: { [me]: summary?.unread ?? 0 },
      last_read: summary?.last_read ? { [me]: date(summary.last_read) ?? "" } : {},
      last_message: summary?.last ? lastMessage(summary.last) : undefined,
      last_activity: date(summary?.last?.created) ?? created,
      muted: summary?.muted ? true : undefined,
    });
  }
}

function lastMessage({ id, content, type, author, username, created, ...files }: Last): LastMessage {
  return present({
    ...{ id, content, type, sender_id: author, sender_username: username, created_at: date(created) ?? "" },
    file_name: filesOf(files)[0]?.name,
  });
}

/** A hidden direct room comes back with its next message. */
function hidden(room: Room, summary: Summary | undefined): boolean {
  return Boolean(summary?.hidden_at) && (date(summary?.hidden_at) ?? "") >= room.last_activity;
}

export function roomsModule(
  context: Context,
  people: People,
  reader: RoomReader,
  changed: (roomId: string) => void,
): RoomsModule {
  const members = () => context.collection("room_members");

  async function getRoom(roomId: string, options?: CallOptions): Promise<{ room: Room }> {
    const room = await reader.one(roomId, options);
    if (!room) throw new NotFoundError("No such room.");
    return { room };
  }

  async function membership(roomId: string, userId: string, options?: CallOptions): Promise<RecordModel> {
    return context.call(options, (request) =>
      members().getFirstListItem(pair("room", roomId, "user", userId), request),
    );
  }

  /** Runs a change of a room; the list of rooms follows without waiting for an event. */
  async function change<T>(roomId: string, work: Promise<T>): Promise<T> {
    const result = await work;
    changed(roomId);
    return result;
  }

  async function updateMember(roomId: string, userId: string, values: object, options?: CallOptions): Promise<void> {
    const { id } = await membership(roomId, userId, options);
    await context.write(options, { collection: "room_members", id }, (request) =>
      members().update(id, values, request),
    );
    changed(roomId);
  }

  return {
    getRooms: async (options) => ({ rooms: await reader.all(options) }),
    getRoom,

    async createRoom(name, type, memberIds = [], options) {
      const made =
        type === "dm"
          ? await context.route<{ id: string }>(
              "POST",
              "direct",
              { user: memberIds.find((id) => id !== context.me()) ?? "" },
              options,
            )
          : await context.route<{ id: string }>(
              "POST",
              "rooms",
              { ...(options?.id ? { id: options.id } : {}), name, type, members: memberIds },
              options,
            );
      changed(made.id);
      return getRoom(made.id, options);
    },

    async renameRoom(roomId, name, options) {
      await context.write(options, { collection: "rooms", id: roomId }, (request) =>
        context.collection("rooms").update(roomId, { name }, request),
      );
      changed(roomId);
      return getRoom(roomId, options);
    },

    async joinRoom(roomId, options) {
      const data = { room: roomId, user: context.me(), role: "member" };
      try {
        await change(
          roomId,
          context.write(options, { collection: "room_members" }, (request) => members().create(data, request)),
        );
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error; // a member already
      }
    },

    leaveRoom: (roomId, options) => change(roomId, context.route("POST", `rooms/${roomId}/leave`, {}, options)),
    inviteToRoom: (roomId, userId, options) =>
      change(roomId, context.route("POST", `rooms/${roomId}/invite`, { user: userId }, options)),
    deleteRoom: (roomId, options) => change(roomId, context.route("DELETE", `rooms/${roomId}`, undefined, options)),

    pinMessage: (roomId, messageId, options) =>
      change(roomId, context.route("POST", `rooms/${roomId}/pins`, { message: messageId }, options)),
    unpinMessage: (roomId, messageId, options) =>
      change(
        roomId,
        context.route("DELETE", `rooms/${roomId}/pins${messageId ? `/${messageId}` : ""}`, undefined, options),
      ),

    markAsRead: (roomId, clearMentions = true, clearReactions = true, options) =>
      change(
        roomId,
        context.route("POST", `rooms/${roomId}/read`, { mentions: clearMentions, reactions: clearReactions }, options),
      ),

    async getMembers(roomId, options) {
      const records = await context.call(options, (request) =>
        members().getFullList({
          ...request,
          batch: 500,
          filter: `room=${quoted(roomId)}`,
          expand: "user",
          sort: "created",
        }),
      );
      const users = records.map((record) => record.expand?.user as RecordModel | undefined);
      const shown = await people.withStatus(
        users.flatMap((user) => (user ? [people.toUser(user)] : [])),
        options,
      );
      const byId = new Map(shown.map((user) => [user.id, user]));
      return {
        members: records.flatMap((record) => {
          const user = byId.get(text(record.user));
          if (!user) return [];
          return [
            present({
              user,
              role: record.role as MemberRole,
              last_read: date(record.last_read),
              joined_at: date(record.created) ?? "",
            }),
          ];
        }),
      };
    },

    async removeMember(roomId, userId, options) {
      const { id } = await membership(roomId, userId, options);
      await context.write(options, { collection: "room_members", id }, (request) => members().delete(id, request));
      changed(roomId);
    },

    setMemberRole: (roomId, userId, role, options) => updateMember(roomId, userId, { role }, options),
    muteRoom: (roomId, muted, options) => updateMember(roomId, context.me(), { muted }, options),

    async getOrCreateFavorites(options) {
      const { id } = await context.route<{ id: string }>("POST", "favorites", {}, options);
      changed(id);
      return getRoom(id, options);
    },
  };
}

export function directMessagesModule(
  context: Context,
  people: People,
  reader: RoomReader,
  messages: Pick<MessagesModule, "getMessages" | "sendMessage">,
  changed: (roomId: string) => void,
): DirectMessagesModule {
  async function toDirect(rooms: Room[], options?: CallOptions): Promise<DirectMessage[]> {
    const me = context.me();
    const found = await people.many(rooms.flatMap(({ dm_participants = [] }) => dm_participants));
    const users = await people.withStatus([...found.values()], options);
    const byId = new Map(users.map((user) => [user.id, user]));
    return rooms.flatMap((room) => {
      const participants = room.dm_participants ?? [];
      const user = byId.get(participants.find((participant) => participant !== me) ?? "");
      if (!user) return []; // the other account is gone
      const { id, created_at, last_message, last_activity, unread_count, last_read } = room;
      return [present({ id, participants, user, created_at, last_message, last_activity, unread_count, last_read })];
    });
  }

  return {
    async getDirectMessages(options) {
      const rooms = (await reader.all(options)).filter(({ type }) => type === "dm");
      return { dms: await toDirect(rooms, options) };
    },

    async createDirectMessage(userId, options) {
      const { id } = await context.route<{ id: string }>("POST", "direct", { user: userId }, options);
      changed(id);
      const room = await reader.one(id, options);
      const [dm] = room ? await toDirect([room], options) : [];
      if (!dm) throw new NotFoundError("No such direct room.");
      return { dm };
    },

    getDMMessages: (dmId, page, options) => messages.getMessages(dmId, page, options),

    sendDMMessage(dmId, content, type, options): Promise<{ message: Message }> {
      const { replyTo, ...rest } = options ?? {};
      return messages.sendMessage(dmId, content, type, replyTo, rest);
    },

    async hideDirectMessage(dmId, options) {
      await context.route("POST", `direct/${dmId}/hide`, {}, options);
      changed(dmId);
    },
  };
}
