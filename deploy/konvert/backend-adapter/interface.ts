// The contract between the chat and its backend. Names, argument orders and result shapes are those of the chat's
// first adapter; additions are optional arguments, optional fields and further methods.
//
// Dates are ISO 8601 in UTC ("2026-11-28T10:00:00.000Z"). All methods reject with a BackendError (see errors.ts).

import type { BackendError } from "./errors.js";
import type {
  ConnectionState,
  Metrics,
  RealtimeStatus,
  RealtimeTransport,
  ResyncReason,
  Unsubscribe,
  UserMode,
  UserState,
} from "./realtime/types.js";

export type * from "./realtime/types.js";
export type { BackendError, ErrorCode } from "./errors.js";

// ---- records

export type Role = "admin" | "moderator" | "vip" | "user";

export interface User {
  id: string;
  /** Empty for other users who do not show their address. */
  email: string;
  /** Unique, also without regard to upper and lower case. */
  username: string;
  display_name?: string;
  role: Role;
  avatar_url?: string;
  /** As far as known: without realtime, "offline". */
  status: RealtimeStatus;
  status_text?: string;
  last_activity?: string;
  created_at: string;
  banned?: boolean;
  /** Absent for a permanent ban. */
  ban_until?: string;
  muted?: boolean;
  /** Absent for permanent muting. */
  mute_until?: string;
  /** Ids of friends; only in the results of getMe, signin and signup. */
  friends?: string[];
  /** Ids of blocked users; only in the results of getMe, signin and signup. */
  blocked_users?: string[];
  public_key?: string;
  /** Newest encrypted key of each room; only in the results of getMe, signin and signup. */
  room_keys?: Record<string, string>;
}

export type RoomType = "public" | "private" | "dm";
export type MemberRole = "owner" | "moderator" | "member";

export interface LastMessage {
  id: string;
  content: string;
  type: MessageType;
  sender_id: string;
  sender_username: string;
  created_at: string;
  /** Original name of the first file. A name in encrypted content is for the client to read. */
  file_name?: string;
}

export interface Room {
  id: string;
  /** For direct rooms, the other user's display name or username; for favourites, a name in the adapter's language. */
  name: string;
  type: RoomType;
  created_by: string;
  created_at: string;
  /** Ids of members, at most 500; `member_count` is complete. */
  members: string[];
  member_count: number;
  /** The caller's role; absent in public rooms that the caller has not joined. */
  my_role?: MemberRole;
  avatar_url?: string;
  pinned_message_id?: string;
  /** All pinned messages, newest pin first. */
  pinned_message_ids: string[];
  is_favorites?: boolean;
  dm_participants?: string[];
  /** Counts by user id; only the caller's own entry is present. Counts end at 999. */
  unread_mentions: Record<string, number>;
  unread_reactions: Record<string, number>;
  unread_count: Record<string, number>;
  /** Read marks by user id; only the caller's own entry is present. */
  last_read: Record<string, string>;
  last_message?: LastMessage;
  /** Time of the last message, else of the room's creation. */
  last_activity: string;
  /** Whether the caller has turned off notifications. */
  muted?: boolean;
}

export interface Member {
  user: User;
  role: MemberRole;
  last_read?: string;
  joined_at: string;
}

export type MessageType = "text" | "image" | "file" | "voice" | "audio" | "video" | "poll" | "system";

export interface Attachment {
  /** The original name, in any alphabet. For files sent before the server kept names, the name of the stored file. */
  name: string;
  /** In bytes; absent for files sent before the server kept sizes. */
  size?: number;
  /** Needs a file token: see `getAttachmentUrl`. */
  url: string;
}

export interface Message {
  id: string;
  room_id: string;
  sender_id: string;
  sender_username: string;
  sender_display_name?: string;
  sender_avatar?: string;
  /**
   * Plain text, a media URL, or end-to-end encrypted content, which passes unchanged. For a poll: question and options as
   * text; `getPoll` takes the message's id.
   */
  content: string;
  type: MessageType;
  reply_to?: string;
  created_at: string;
  updated_at?: string;
  /** Ids of users by emoji. */
  reactions: Record<string, string[]>;
  forwarded?: boolean;
  forwarded_from?: string;
  mentions?: string[];
  edited?: boolean;
  edited_at?: string;
  attachments?: Attachment[];
  /** State of a message of this client; absent for messages that the server has stored. */
  state?: MessageState;
  /** Reason for the state "failed". */
  error?: { code: string; message: string; action: string };
}

/** "pending": kept on this device until the server has stored it. "failed": refused; see `error`. */
export type MessageState = "pending" | "failed";

export interface DirectMessage {
  /** Also the room's id: all methods for rooms accept it. */
  id: string;
  participants: string[];
  /** The other user. */
  user: User;
  created_at: string;
  last_message?: LastMessage;
  last_activity: string;
  unread_count: Record<string, number>;
  last_read: Record<string, string>;
}

export interface FriendRequest {
  id: string;
  from: User;
  to: User;
  status: "pending" | "accepted" | "rejected";
  created_at: string;
}

export type NotificationType = "friend_request" | "friend_accepted" | "mention" | "reaction" | "room_invite";

export interface Notification {
  id: string;
  userId: string;
  type: NotificationType;
  fromUserId?: string;
  fromUsername?: string;
  roomId?: string;
  roomName?: string;
  messageId?: string;
  /** Id of an unanswered friend request, for acceptFriendRequest and rejectFriendRequest. */
  requestId?: string;
  /** A sentence in the adapter's language; for reactions the emoji, for mentions the message as far as it is plain text. */
  content?: string;
  read: boolean;
  createdAt: string;
}

export interface Achievement {
  id: string;
  name: string;
  description: string;
  icon: string;
  rarity: "common" | "rare" | "epic" | "legendary";
  progress: number;
  max_progress: number;
  unlocked_at?: string;
  /** Name and condition are a surprise: show them only after `unlocked_at`. */
  secret?: boolean;
  /** The server cannot check the condition, and does not grant it; imported ones stay. */
  unavailable?: boolean;
}

export interface PollOption {
  text: string;
  count: number;
  /** Ids of voters; empty in an anonymous poll, except the caller's own. */
  votes: string[];
}

export interface Poll {
  id: string;
  room_id: string;
  message_id: string;
  question: string;
  options: PollOption[];
  anonymous: boolean;
  created_by: string;
  created_at: string;
  /** Index of the caller's choice. */
  my_vote?: number;
}

// ---- arguments

export interface CallOptions {
  /** Cancels the call with an AbortedError. A cancelled write may have happened. */
  signal?: AbortSignal;
}

export interface PageOptions extends CallOptions {
  /** Most entries of the page; 50 unless given, at most 500. */
  limit?: number;
  /** `cursor` of the page before, for the next older page. */
  before?: string;
}

export interface Page {
  /** Pass as `before` to get the next older page; `null` at the end. */
  cursor: string | null;
}

export interface SendOptions extends CallOptions {
  /** Files to attach; a message with files is not kept while the network is away. */
  files?: File[];
  /** Ids of mentioned users. Without it, the server finds `@username` in plain text. Needed for encrypted content. */
  mentions?: string[];
  /** The message's id: 15 to 32 characters of a-z and 0-9. Chosen by the adapter unless given. */
  id?: string;
}

export interface ForwardOptions extends CallOptions {
  /** Replaces the content: end-to-end encrypted content has to be encrypted for the other room. */
  content?: string;
}

export interface CreateRoomOptions extends CallOptions {
  /** The room's id; makes a repeated call create one room only. */
  id?: string;
}

export interface SearchOptions extends PageOptions {
  roomId?: string;
}

export interface SaveKeysOptions extends CallOptions {
  /** Version of the keys. Without it: the current version, or the next if one of the users has a key of the current. */
  version?: number;
}

export type ProfileUpdates = Partial<Pick<User, "username" | "display_name" | "status_text">> & { name?: string };

// ---- realtime

export interface RoomHandlers {
  onDelete?(messageId: string): void;
  /** Read marks, joins, leaves and roles of members. */
  onMember?(change: {
    action: "create" | "update" | "delete";
    userId: string;
    role: MemberRole;
    last_read?: string;
  }): void;
  onRoom?(room: Partial<Room> & { id: string }): void;
  onPoll?(pollId: string, messageId: string): void;
  /** A message was pinned or unpinned: `pinned_message_ids` of the room has changed. */
  onPins?(): void;
  onTyping?(typing: { userId: string; until: number }): void;
  /** Ids of all users who have the chat open and see this room: at the start and after each change. */
  onPresence?(userIds: string[]): void;
  /** Changes may have been missed: load the messages again. */
  onResync?(reason: ResyncReason): void;
  /** Subscribed, for the first time or again. */
  onReady?(): void;
  /** The user has lost access, or the room is gone. If access returns, the subscription resumes by itself. */
  onClosed?(why: { code: number; reason: string; deleted: boolean }): void;
  onError?(error: BackendError): void;
}

export interface RoomUpdatesHandlers {
  onError?(error: BackendError): void;
}

export interface UserHandlers {
  onNotification?(notification: Notification): void;
  onFriendRequest?(change: {
    action: "create" | "update" | "delete";
    id: string;
    from: string;
    to: string;
    status: FriendRequest["status"];
  }): void;
  onRoomKey?(key: { roomId: string; encryptedKey: string; version: number }): void;
  onAchievement?(achievement: { id: string; progress: number; unlocked_at?: string }): void;
  /** Subscribed, for the first time or again: what was loaded before the first time may lack the latest changes. */
  onReady?(): void;
  onResync?(reason: ResyncReason): void;
  onError?(error: BackendError): void;
}

// ---- modules

export interface AuthModule {
  signup(
    email: string,
    password: string,
    username: string,
    options?: CallOptions,
  ): Promise<{ user: User; access_token: string }>;
  signin(email: string, password: string, options?: CallOptions): Promise<{ user: User; access_token: string }>;
  /** Ends the login on this device, closes the realtime connection and forgets pending messages. */
  signout(): Promise<void>;
  getMe(options?: CallOptions): Promise<{ user: User }>;
  /** A fresh token; rejects with UnauthorizedError when the login is over. The argument is for other backends. */
  refreshToken(refreshToken?: string, options?: CallOptions): Promise<{ access_token: string }>;
  /** Id of the logged-in user, from the stored token; works offline. */
  currentUserId(): string | null;
  /** Calls back after a login, a log-out (also in another tab) and at the end of the login. */
  onAuthChange(callback: (user: { id: string } | null) => void): Unsubscribe;
}

/** Beside the chat's first contract. */
export interface AccountModule {
  /** Ends the logins of all other devices. */
  changePassword(oldPassword: string, newPassword: string, options?: CallOptions): Promise<void>;
  /** Sends a mail with a link to the new address. The address changes once the user has confirmed. */
  changeEmail(newEmail: string, options?: CallOptions): Promise<void>;
  /** `token` from the mail. Ends all logins, also this one. */
  confirmEmailChange(token: string, password: string, options?: CallOptions): Promise<void>;
  /** Deletes an account for good; the messages stay, without an author. Admins delete others, everybody themselves. */
  deleteUser(userId: string, options?: CallOptions): Promise<void>;
}

export interface UsersModule {
  searchUsers(query: string, options?: PageOptions): Promise<{ users: User[] }>;
  getUserById(userId: string, options?: CallOptions): Promise<{ user: User }>;
  updateUserProfile(updates: ProfileUpdates, options?: CallOptions): Promise<{ user: User }>;
  updateUserRole(userId: string, role: Role, options?: CallOptions): Promise<{ user: User }>;
  /** Without `hours`, the ban is permanent. */
  banUser(userId: string, hours?: number, options?: CallOptions): Promise<void>;
  unbanUser(userId: string, options?: CallOptions): Promise<void>;
  /** Without `hours`, 24 hours. */
  muteUser(userId: string, hours?: number, options?: CallOptions): Promise<void>;
  unmuteUser(userId: string, options?: CallOptions): Promise<void>;
  blockUser(userId: string, options?: CallOptions): Promise<void>;
  unblockUser(userId: string, options?: CallOptions): Promise<void>;
  uploadAvatar(file: File, options?: CallOptions): Promise<{ avatarUrl: string }>;
}

export interface RoomsModule {
  getRooms(options?: CallOptions): Promise<{ rooms: Room[] }>;
  getRoom(roomId: string, options?: CallOptions): Promise<{ room: Room }>;
  createRoom(name: string, type: RoomType, memberIds?: string[], options?: CreateRoomOptions): Promise<{ room: Room }>;
  renameRoom(roomId: string, name: string, options?: CallOptions): Promise<{ room: Room }>;
  joinRoom(roomId: string, options?: CallOptions): Promise<void>;
  /** If the owner leaves, the oldest moderator or member becomes the owner. */
  leaveRoom(roomId: string, options?: CallOptions): Promise<void>;
  inviteToRoom(roomId: string, userId: string, options?: CallOptions): Promise<void>;
  /** Deletes the room for everybody; a direct room is hidden for the caller, as by `hideDirectMessage`. */
  deleteRoom(roomId: string, options?: CallOptions): Promise<void>;
  pinMessage(roomId: string, messageId: string, options?: CallOptions): Promise<void>;
  /** Without `messageId`, removes the newest pin. */
  unpinMessage(roomId: string, messageId?: string, options?: CallOptions): Promise<void>;
  /** Mentions are cleared unless `clearMentions` is false; reactions are cleared if `clearReactions` is not false. */
  markAsRead(roomId: string, clearMentions?: boolean, clearReactions?: boolean, options?: CallOptions): Promise<void>;
  getMembers(roomId: string, options?: CallOptions): Promise<{ members: Member[] }>;
  removeMember(roomId: string, userId: string, options?: CallOptions): Promise<void>;
  setMemberRole(
    roomId: string,
    userId: string,
    role: Exclude<MemberRole, "owner">,
    options?: CallOptions,
  ): Promise<void>;
  muteRoom(roomId: string, muted: boolean, options?: CallOptions): Promise<void>;
  /** The caller's own room for notes and forwarded messages. */
  getOrCreateFavorites(options?: CallOptions): Promise<{ room: Room }>;
}

export interface MessagesModule {
  /** Oldest first. Pending and failed messages of this device stand at the end of the newest page. */
  getMessages(
    roomId: string,
    page?: number | PageOptions,
    options?: CallOptions,
  ): Promise<{ messages: Message[] } & Page>;
  getMessage(messageId: string, options?: CallOptions): Promise<{ message: Message }>;
  /** Resolves with `state: "pending"` if the network is away: the message is kept and sent once, later. */
  sendMessage(
    roomId: string,
    content: string,
    type?: MessageType,
    replyTo?: string,
    options?: SendOptions,
  ): Promise<{ message: Message }>;
  editMessage(
    messageId: string,
    content: string,
    options?: CallOptions & { mentions?: string[] },
  ): Promise<{ message: Message }>;
  deleteMessage(messageId: string, options?: CallOptions): Promise<void>;
  addReaction(messageId: string, emoji: string, options?: CallOptions): Promise<void>;
  removeReaction(messageId: string, emoji: string, options?: CallOptions): Promise<void>;
  forwardMessage(messageId: string, targetRoomId: string, options?: ForwardOptions): Promise<{ message: Message }>;
  /** Newest first, in all rooms that the caller may see. Encrypted content cannot be found. */
  searchMessages(query: string, options?: SearchOptions): Promise<{ messages: Message[] } & Page>;
  /** Messages of this device that the server has not stored. */
  getPendingMessages(roomId?: string): Message[];
  retryMessage(messageId: string): Promise<{ message: Message }>;
  discardMessage(messageId: string): void;
  /** Address of an attachment with a token, valid for a few minutes. */
  getAttachmentUrl(attachment: Attachment, options?: CallOptions): Promise<{ url: string }>;
}

export interface DirectMessagesModule {
  getDirectMessages(options?: CallOptions): Promise<{ dms: DirectMessage[] }>;
  /** The direct room with this user: the existing one, else a new one. */
  createDirectMessage(userId: string, options?: CallOptions): Promise<{ dm: DirectMessage }>;
  getDMMessages(
    dmId: string,
    page?: number | PageOptions,
    options?: CallOptions,
  ): Promise<{ messages: Message[] } & Page>;
  sendDMMessage(
    dmId: string,
    content: string,
    type?: MessageType,
    options?: SendOptions & { replyTo?: string },
  ): Promise<{ message: Message }>;
  /** Hides the conversation in the caller's list until the next message. */
  hideDirectMessage(dmId: string, options?: CallOptions): Promise<void>;
}

export interface FriendsModule {
  getFriends(options?: CallOptions): Promise<{ users: User[] }>;
  /** If the other user has asked already, both become friends at once. */
  sendFriendRequest(userId: string, options?: CallOptions): Promise<void>;
  acceptFriendRequest(requestId: string, options?: CallOptions): Promise<void>;
  rejectFriendRequest(requestId: string, options?: CallOptions): Promise<void>;
  removeFriend(userId: string, options?: CallOptions): Promise<void>;
  /** Pending requests, to and from the caller. */
  getFriendRequests(options?: CallOptions): Promise<{ requests: FriendRequest[] }>;
}

export interface EncryptionModule {
  updatePublicKey(publicKey: string, options?: CallOptions): Promise<void>;
  /** The caller's newest key of the room. */
  getRoomKey(roomId: string, options?: CallOptions): Promise<{ encryptedKey: string | null; version?: number }>;
  /** All keys of the caller for the room, newest first: old messages need old keys. */
  getRoomKeys(roomId: string, options?: CallOptions): Promise<{ keys: { encryptedKey: string; version: number }[] }>;
  /** Keys by user id, stored all or none. */
  saveRoomKeys(
    roomId: string,
    encryptedKeys: Record<string, string>,
    options?: SaveKeysOptions,
  ): Promise<{ version: number }>;
}

export interface AchievementsModule {
  getAchievements(options?: CallOptions & { userId?: string }): Promise<{ achievements: Achievement[] }>;
  /**
   * The server checks the condition, and refuses with ForbiddenError while it is not met, or with UnsupportedError if the
   * server cannot check it.
   */
  unlockAchievement(achievementId: string, options?: CallOptions): Promise<void>;
}

export interface PollsModule {
  /** Creates the poll and its message. */
  createPoll(
    roomId: string,
    question: string,
    options: string[],
    anonymous?: boolean,
    call?: CallOptions,
  ): Promise<{ poll: Poll }>;
  /** `pollId`: the id of the poll, or of the poll's message. */
  getPoll(pollId: string, options?: CallOptions): Promise<{ poll: Poll }>;
  /** A second vote replaces the first; `null` withdraws it. */
  votePoll(pollId: string, optionIndex: number | null, options?: CallOptions): Promise<{ poll: Poll }>;
}

export interface NotificationsModule {
  /** Newest first. */
  getNotifications(options?: PageOptions): Promise<{ notifications: Notification[] } & Page>;
  markNotificationAsRead(notificationId: string, options?: CallOptions): Promise<void>;
  /** Succeeds for a notification that is gone: an answered friend request takes its notification along. */
  deleteNotification(notificationId: string, options?: CallOptions): Promise<void>;
}

/** Subscriptions before the login start with the login; those with an `onError` report an UnauthorizedError at once. */
export interface RealtimeModule {
  /**
   * Calls back with each new or changed message of the room, also the caller's own: pending at once, then stored. A
   * change of reactions is a changed message.
   */
  subscribeToRoom(roomId: string, callback: (message: Message) => void, handlers?: RoomHandlers): Unsubscribe;
  subscribeToUserStatus(userId: string, callback: (status: RealtimeStatus, state: UserState) => void): Unsubscribe;
  /** Calls back with the complete list of rooms: at first, then after each change, also of unread counts. */
  subscribeToRoomUpdates(callback: (rooms: Room[]) => void, handlers?: RoomUpdatesHandlers): Unsubscribe;
  /** Events for the caller: notifications, friend requests, room keys, achievements. */
  subscribeToUser(handlers: UserHandlers): Unsubscribe;
  /** Tells the room that the caller is typing; call it at each key stroke, the adapter limits the rate. */
  sendTyping(roomId: string): void;
  /** The caller's own status; "online" removes a status that was set. */
  setStatus(mode: UserMode): Promise<void>;
  getStatus(): Promise<{ mode: UserMode }>;
  /** Tells that this device is idle or in use again: with all devices idle, an online user becomes "away". */
  setIdle?(idle: boolean): Promise<void>;
  getStatuses(userIds: string[]): Promise<{ statuses: Record<string, UserState> }>;
  /** Ids of users who have the chat open and see this room. The room must be subscribed. */
  presence(roomId: string): Promise<{ userIds: string[] }>;
  connectionState(): ConnectionState;
  onConnectionState(callback: (state: ConnectionState) => void): Unsubscribe;
  /** Latency, delivered and recovered events, reconnects. */
  metrics(): Metrics;
}

export interface StorageModule {
  /** Stores a file under a path of the caller; a file at the same path is replaced. The address is public but secret. */
  uploadFile(file: File, path: string, options?: CallOptions): Promise<{ url: string; path: string }>;
  deleteFile(path: string, options?: CallOptions): Promise<void>;
  getFileUrl(path: string, options?: CallOptions): Promise<{ url: string }>;
}

/** Everything that the chat needs from a backend. */
export interface IBackendAdapter
  extends AuthModule,
    AccountModule,
    UsersModule,
    RoomsModule,
    MessagesModule,
    DirectMessagesModule,
    FriendsModule,
    EncryptionModule,
    AchievementsModule,
    PollsModule,
    NotificationsModule,
    RealtimeModule,
    StorageModule {
  /** Ends connections, timers and listeners. The login stays stored. */
  close(): void;
}

// ---- configuration

export type BackendType = "pocketbase" | "supabase" | "firebase" | "custom";

export interface BackendConfig {
  type: BackendType;
  url: string;
  /** Address of the gateway's WebSocket. */
  gatewayUrl?: string;
  apiKey?: string;
  /** Name of the edge function on Supabase; that of the chat's own unless given. */
  functionName?: string;
  transport: RealtimeTransport;
  features: { realtime: boolean; fileUpload: boolean; voiceVideo: boolean; e2ee: boolean };
}
