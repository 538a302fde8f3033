// Records of the contract, from rows of the old backend. Rows are whatever years of versions have written: any field
// can be absent or of another type.

import type {
  Achievement,
  DirectMessage,
  LastMessage,
  Message,
  MessageType,
  Notification,
  NotificationType,
  Poll,
  Role,
  Room,
  RoomType,
  User,
} from "../interface.js";
import { present } from "../modules/context.js";
import { list, text } from "../modules/people.js";

export type Row = Record<string, unknown>;

/** Without a sign of life for this time, a user counts as offline; the old chat sends a sign of life every two minutes. */
const ALIVE_MS = 5 * 60_000;
/** Counts end here. */
const MOST = 999;

const ROLES: readonly Role[] = ["admin", "moderator", "vip", "user"];
const ROOM_TYPES: readonly RoomType[] = ["public", "private", "dm"];

export function rows(value: unknown): Row[] {
  return Array.isArray(value) ? value.filter(isRow) : [];
}

export function isRow(value: unknown): value is Row {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function row(value: unknown): Row {
  return isRow(value) ? value : {};
}

/** Ids without repetition: the old backend appends an id twice when two requests meet. */
function ids(value: unknown): string[] {
  return [...new Set(list(value))];
}

/** A user. The backend shows everybody everything; `isSelf` tells whether the private fields belong in the result. */
export function toUser(raw: Row, isSelf: boolean): User {
  const banUntil = text(raw.ban_until) || undefined;
  // Muting is written as mute_until, and read by the backend as muted_until.
  const muteUntil = text(raw.mute_until) || text(raw.muted_until) || undefined;
  const banned = raw.banned === true && !isPast(banUntil);
  const muted = raw.muted === true && !isPast(muteUntil);
  return present({
    id: text(raw.id),
    email: isSelf ? text(raw.email) : "",
    username: text(raw.username) || text(raw.id),
    display_name: text(raw.display_name) || undefined,
    role: ROLES.find((role) => role === raw.role) ?? "user",
    avatar_url: text(raw.avatar) || text(raw.avatar_url) || undefined,
    status: isAlive(raw) ? ("online" as const) : ("offline" as const),
    last_activity: text(raw.last_activity) || undefined,
    created_at: text(raw.created_at),
    banned: banned ? true : undefined,
    ban_until: banned ? banUntil : undefined,
    muted: muted ? true : undefined,
    mute_until: muted ? muteUntil : undefined,
    friends: isSelf ? ids(raw.friends) : undefined,
    blocked_users: isSelf ? ids(raw.blocked_users) : undefined,
    public_key: text(raw.public_key) || undefined,
    room_keys: isSelf ? texts(raw.room_keys) : undefined,
  });
}

/** The status "online" stays in the row when a page is closed without a log-out. */
function isAlive(raw: Row): boolean {
  if (raw.status !== "online") return false;
  const last = Date.parse(text(raw.last_activity));
  return Number.isNaN(last) || Date.now() - last < ALIVE_MS;
}

function isPast(date: string | undefined): boolean {
  return date !== undefined && Date.parse(date) < Date.now();
}

export function texts(value: unknown): Record<string, string> {
  return Object.fromEntries(
    Object.entries(row(value)).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

/** `other`: display name of the partner in a direct room. */
export function toRoom(raw: Row, me: string, other?: string): Room {
  const members = ids(raw.members);
  const participants = ids(raw.dm_participants);
  const type = ROOM_TYPES.find((known) => known === raw.type) ?? "private";
  const current = text(raw.pinned_message_id);
  const pins = [...new Set([current, ...ids(raw.pinned_message_ids).reverse()])].filter(Boolean);
  const created = text(raw.created_at);
  const last = lastMessage(raw.last_message);
  const everybody = type === "dm" ? [...new Set([...members, ...participants])] : members;
  const role = raw.created_by === me ? ("owner" as const) : ("member" as const);
  return present({
    id: text(raw.id),
    name: type === "dm" ? (other ?? text(raw.name)) : text(raw.name),
    type,
    created_by: text(raw.created_by),
    created_at: created,
    members: everybody.slice(0, 500),
    member_count: everybody.length,
    my_role: everybody.includes(me) ? role : undefined,
    avatar_url: text(raw.avatar_url) || undefined,
    pinned_message_id: current || undefined,
    pinned_message_ids: pins,
    is_favorites: raw.is_favorites === true ? true : undefined,
    dm_participants: type === "dm" ? participants : undefined,
    unread_mentions: own(raw.unread_mentions, me),
    unread_reactions: own(raw.unread_reactions, me),
    unread_count: own(raw.unread_count, me),
    last_read: readMark(raw.last_read, me),
    last_message: last,
    last_activity: text(raw.last_activity) || last?.created_at || created,
  });
}

function own(counts: unknown, me: string): Record<string, number> {
  const count = Number(row(counts)[me] ?? 0);
  return { [me]: Number.isFinite(count) ? Math.min(Math.max(count, 0), MOST) : 0 };
}

function readMark(marks: unknown, me: string): Record<string, string> {
  const mark = text(row(marks)[me]);
  return mark ? { [me]: mark } : {};
}

/** The backend keeps the beginning of the last message in the room's row, without its id. */
function lastMessage(value: unknown): LastMessage | undefined {
  if (!isRow(value)) return undefined;
  return {
    id: text(value.id),
    content: text(value.content),
    type: messageType(value.type),
    sender_id: text(value.sender_id),
    sender_username: text(value.sender_username),
    created_at: text(value.created_at),
  };
}

function messageType(value: unknown): MessageType {
  return (text(value) || "text") as MessageType;
}

export function toDirect(raw: Row, me: string, user: User): DirectMessage {
  const last = lastMessage(raw.last_message);
  return present({
    id: text(raw.id),
    participants: ids(raw.participants),
    user,
    created_at: text(raw.created_at),
    last_message: last,
    last_activity: text(raw.last_activity) || last?.created_at || text(raw.created_at),
    unread_count: own(raw.unread_count, me),
    last_read: readMark(raw.last_read, me),
  });
}

/** A direct conversation as a room, for the methods of rooms. */
export function directAsRoom(raw: Row, me: string, other: string): Room {
  const participants = ids(raw.participants);
  return toRoom(
    { ...raw, type: "dm", members: participants, dm_participants: participants, created_by: "" },
    me,
    other,
  );
}

export function toMessage(raw: Row): Message {
  const mentions = ids(raw.mentions);
  return present({
    id: text(raw.id),
    room_id: text(raw.room_id),
    sender_id: text(raw.sender_id),
    sender_username: text(raw.sender_username),
    sender_display_name: text(raw.sender_display_name) || undefined,
    sender_avatar: text(raw.sender_avatar) || undefined,
    content: text(raw.content),
    type: messageType(raw.type),
    reply_to: text(raw.reply_to) || undefined,
    created_at: text(raw.created_at),
    updated_at: text(raw.edited_at) || undefined,
    reactions: Object.fromEntries(
      Object.entries(row(raw.reactions)).flatMap(([emoji, users]) =>
        ids(users).length > 0 ? [[emoji, ids(users)]] : [],
      ),
    ),
    forwarded: raw.forwarded === true ? true : undefined,
    mentions: mentions.length > 0 ? mentions : undefined,
    edited: raw.edited === true ? true : undefined,
    edited_at: text(raw.edited_at) || undefined,
  });
}

export function toPoll(raw: Row, me: string, roomId: string): Poll {
  const anonymous = raw.anonymous === true;
  const votes = list(raw.options).map((_, index) => ids(row(raw.votes)[String(index)]));
  const mine = votes.findIndex((voters) => voters.includes(me));
  return present({
    id: text(raw.id),
    room_id: roomId,
    message_id: text(raw.message_id) || text(raw.id),
    question: text(raw.question),
    options: list(raw.options).map((option, index) => {
      const voters = votes[index] ?? [];
      return { text: option, count: voters.length, votes: anonymous ? voters.filter((id) => id === me) : voters };
    }),
    anonymous,
    created_by: text(raw.created_by),
    created_at: text(raw.created_at),
    my_vote: mine < 0 ? undefined : mine,
  });
}

/** The row of a request to become friends: `friend_request:<from>:<to>`. */
export function requestId(from: string, to: string): string {
  return `friend_request:${from}:${to}`;
}

/** Key of the request behind a notification. */
export function requestOf(notification: Row): string | null {
  if (notification.type !== "friend_request") return null;
  const key = text(row(notification.actionData).requestKey);
  return key || requestId(text(notification.fromUserId), text(notification.userId));
}

export function toNotification(raw: Row): Notification {
  return present({
    id: text(raw.id),
    userId: text(raw.userId),
    type: text(raw.type) as NotificationType,
    fromUserId: text(raw.fromUserId) || undefined,
    fromUsername: text(raw.fromUsername) || undefined,
    roomId: text(raw.roomId) || undefined,
    roomName: text(raw.roomName) || undefined,
    messageId: text(raw.messageId) || undefined,
    requestId: requestOf(raw) ?? undefined,
    content: text(raw.content) || undefined,
    read: raw.read === true,
    createdAt: text(raw.createdAt),
  });
}

/** Name and rarity of an achievement; known to the old frontend only, not to the backend. */
export type AchievementDefinition = Omit<Achievement, "progress" | "unlocked_at">;

export function toAchievement(raw: Row, id: string, known: AchievementDefinition | undefined): Achievement {
  const definition = known ?? { id, name: id, description: "", icon: "", rarity: "common" as const, max_progress: 1 };
  const progress = Number(raw.progress ?? 0);
  return present({
    ...definition,
    progress: Number.isFinite(progress) ? progress : 0,
    unlocked_at: raw.isUnlocked === true ? text(raw.unlockedAt) || "1970-01-01T00:00:00.000Z" : undefined,
  });
}
