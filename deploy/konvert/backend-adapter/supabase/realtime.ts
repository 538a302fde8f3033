// The chat's subscriptions, by polling.

import { UnsupportedError } from "../errors.js";
import type {
  Message,
  RealtimeModule,
  Room,
  RoomUpdatesHandlers,
  Unsubscribe,
  UserHandlers,
  UserState,
} from "../interface.js";
import { present } from "../modules/context.js";
import type { Draft, Outbox } from "../modules/outbox.js";
import { text } from "../modules/people.js";
import { segment, type Client } from "./client.js";
import type { MessageReader, MessageStores, Sent } from "./messages.js";
import type { People } from "./people.js";
import { requestId, requestOf, row, texts, toNotification, type Row } from "./records.js";
import { RoomView, type Viewer } from "./room-view.js";
import type { RoomChanges, RoomReader } from "./rooms.js";
import { notificationRows, partiesOf } from "./social.js";
import type { Watch } from "./watch.js";

const NO_REALTIME = "the old backend has no realtime.";

interface Repeated {
  now: () => void;
  end: Unsubscribe;
}

/** Subscribed rooms, and the shared list of rooms. */
export class RoomViews implements MessageStores, RoomChanges {
  private readonly open = new Map<string, RoomView>();
  private readonly lists = new Map<(rooms: Room[]) => void, RoomUpdatesHandlers>();
  private list: Repeated | null = null;
  private last: { content: string; rooms: Room[] } | null = null;

  constructor(
    private readonly client: Client,
    private readonly messages: MessageReader,
    private readonly rooms: RoomReader,
    private readonly watch: Watch,
  ) {}

  subscribe(roomId: string, viewer: Viewer): Unsubscribe {
    const readPoll = async (id: string) => JSON.stringify((await this.client.get<Row>(`/polls/${segment(id)}`)).poll);
    const view = this.open.get(roomId) ?? new RoomView(roomId, this.messages, this.watch, readPoll);
    this.open.set(roomId, view);
    view.add(viewer);
    this.needList();
    return () => {
      view.viewers.delete(viewer);
      if (view.viewers.size > 0 || this.open.get(roomId) !== view) return;
      view.end();
      this.open.delete(roomId);
      this.needList();
    };
  }

  subscribeToList(callback: (rooms: Room[]) => void, handlers: RoomUpdatesHandlers): Unsubscribe {
    // The same function may subscribe twice.
    const own = (rooms: Room[]) => callback(rooms);
    this.lists.set(own, handlers);
    if (this.last) own(this.last.rooms);
    this.needList();
    return () => {
      this.lists.delete(own);
      this.needList();
    };
  }

  private needList(): void {
    if (this.open.size + this.lists.size === 0) {
      this.list?.end();
      this.list = this.last = null;
    } else {
      this.list ??= this.watch.repeat(
        this.watch.periods.rooms,
        () => this.pollList(),
        (error) => {
          for (const handlers of [...this.lists.values()]) handlers.onError?.(error);
        },
      );
    }
  }

  private async pollList(): Promise<void> {
    const { rooms, readMarks } = await this.rooms.snapshot();
    for (const [id, view] of this.open)
      view.listed(
        rooms.find((room) => room.id === id),
        readMarks.get(id) ?? {},
      );
    const content = JSON.stringify(rooms);
    if (content === this.last?.content) return;
    this.last = { content, rooms };
    for (const callback of [...this.lists.keys()]) callback(rooms);
  }

  /** Forgets the list after a change of the login. */
  reset(): void {
    this.last = null;
  }

  changed(change: Message | string): void {
    if (typeof change !== "string") this.open.get(change.room_id)?.put(change);
    this.list?.now();
  }
  replaced(roomId: string, draftId: string, message: Message): void {
    this.open.get(roomId)?.drop(draftId);
    this.changed(message);
  }
  deleted(roomId: string, messageId: string): void {
    this.open.get(roomId)?.drop(messageId);
    this.list?.now();
  }
  joined(roomId: string): void {
    this.open.get(roomId)?.joined();
    this.list?.now();
  }
  left(roomId: string): void {
    this.open.get(roomId)?.left();
    this.list?.now();
  }
  typing(roomId: string): void {
    this.open.get(roomId)?.typing();
  }
}

interface Parts {
  client: Client;
  people: People;
  outbox: Outbox<Sent>;
  views: RoomViews;
  watch: Watch;
  fromDraft: (draft: Draft) => Message;
}

export function realtimeModule({ client, people, outbox, views, watch, fromDraft }: Parts): RealtimeModule {
  const stateOf = async (userId: string): Promise<UserState> => {
    const { user, raw } = await people.one(userId);
    const last = Date.parse(text(raw.last_activity));
    return { status: user.status, last_seen: Number.isNaN(last) ? null : last };
  };

  return {
    subscribeToRoom(roomId, callback, handlers = {}) {
      client.me();
      const end = views.subscribe(roomId, { callback, handlers });
      for (const draft of outbox.list(roomId)) callback(fromDraft(draft));
      return end;
    },

    subscribeToUserStatus(userId, callback) {
      client.me();
      let status: string | undefined;
      const work = async () => {
        const state = await stateOf(userId);
        if (state.status === status) return;
        status = state.status;
        callback(state.status, state);
      };
      return watch.repeat(watch.periods.rooms, work, () => {}).end;
    },

    subscribeToRoomUpdates(callback, handlers = {}) {
      client.me();
      return views.subscribeToList(callback, handlers);
    },
    subscribeToUser: (handlers) => subscribeToUser(client, watch, handlers),

    sendTyping: (roomId) => views.typing(roomId),

    /** The backend knows "online" and "offline" only. */
    async setStatus(mode) {
      if (mode !== "online") throw new UnsupportedError("setStatus", `the old backend has no status "${mode}".`);
      await client.post("/auth/activity");
    },
    async getStatus() {
      client.me();
      return { mode: "online" };
    },
    async getStatuses(userIds) {
      client.me();
      const found = await Promise.all(
        [...new Set(userIds)].map(async (id) => {
          const state = await stateOf(id).catch((): UserState => ({ status: "offline", last_seen: null }));
          return [id, state] as const;
        }),
      );
      return { statuses: Object.fromEntries(found) };
    },
    async presence() {
      throw new UnsupportedError("presence", NO_REALTIME);
    },
    connectionState: () => watch.state(),
    onConnectionState: (callback) => watch.onState(callback),
    metrics: () => watch.metrics(),
  };
}

/** New notifications, requests, keys and achievements of the caller, by comparison with the poll before. */
function subscribeToUser(client: Client, watch: Watch, handlers: UserHandlers): Unsubscribe {
  const failed = (error: Parameters<NonNullable<UserHandlers["onError"]>>[0]) => handlers.onError?.(error);
  const jobs: Repeated[] = [];
  client.me();

  let seen: Set<string> | null = null;
  const notifications = async () => {
    const found = await notificationRows(client);
    const before = seen;
    seen = new Set(found.map(({ id }) => text(id)));
    if (!before) return;
    for (const note of found.filter(({ id }) => !before.has(text(id))).reverse()) tellOf(note, client.me(), handlers);
  };
  jobs.push(watch.repeat(watch.periods.notifications, notifications, failed));

  let keys: Record<string, string> | null = null;
  if (handlers.onRoomKey) {
    const work = async () => {
      // Not /auth/me: that route writes the whole row back and can undo a concurrent change.
      const answer = await client.get<Row>(`/users/${segment(client.me())}`);
      const before = keys;
      keys = texts(row(answer.user).room_keys);
      for (const [roomId, encryptedKey] of Object.entries(keys)) {
        if (before && before[roomId] !== encryptedKey) handlers.onRoomKey?.({ roomId, encryptedKey, version: 1 });
      }
    };
    jobs.push(watch.repeat(watch.periods.rooms, work, failed));
  }

  let progress: Record<string, string> | null = null;
  if (handlers.onAchievement) {
    const work = async () => {
      const answer = await client.get<Row>(`/achievements/${segment(client.me())}`);
      const before = progress;
      const found = Object.entries(row(answer.achievements));
      progress = Object.fromEntries(found.map(([id, value]) => [id, JSON.stringify(value)]));
      if (!before) return;
      for (const [id, value] of found) {
        if (before[id] === progress[id]) continue;
        const unlocked = row(value).isUnlocked === true ? text(row(value).unlockedAt) : undefined;
        handlers.onAchievement?.(present({ id, progress: Number(row(value).progress ?? 0), unlocked_at: unlocked }));
      }
    };
    jobs.push(watch.repeat(watch.periods.rooms, work, failed));
  }
  return () => jobs.forEach(({ end }) => end());
}

function tellOf(note: Row, me: string, handlers: UserHandlers): void {
  handlers.onNotification?.(toNotification(note));
  const request = requestOf(note);
  const parties = request ? partiesOf(request) : null;
  if (request && parties) handlers.onFriendRequest?.({ action: "create", id: request, ...parties, status: "pending" });
  if (note.type === "friend_accepted") {
    const other = text(note.fromUserId);
    handlers.onFriendRequest?.({ action: "update", id: requestId(me, other), from: me, to: other, status: "accepted" });
  }
}
