// The chat's subscriptions on top of the generic channels of realtime.ts.

import type { RecordModel } from "pocketbase";
import { UnauthorizedError, UnsupportedError, type BackendError } from "../errors.js";
import type { ConnectionState, FriendRequest, Message, Metrics, RealtimeModule, Unsubscribe } from "../interface.js";
import type { ChannelHandlers, FallbackTopic, Realtime, RecordEvent } from "../realtime.js";
import { date, present, quoted, type Context } from "./context.js";
import type { MessageReader, RoomStores } from "./messages.js";
import type { Outbox } from "./outbox.js";
import { text, type People } from "./people.js";
import type { RoomList } from "./room-list.js";
import { RoomView, type Viewer } from "./room-view.js";
import { Sequence } from "./sequence.js";
import { NOTIFICATION_PARTS, toNotification } from "./social.js";

/** PocketBase's realtime topics in place of a channel of the gateway. */
export function topicsOf(channel: string, me: string): FallbackTopic[] {
  const [kind, id = ""] = channel.split(":");
  const own = (collection: string): FallbackTopic => ({ collection, filter: `user=${quoted(me)}` });
  const inRoom = (collection: string, path = "room"): FallbackTopic => ({
    collection,
    filter: `${path}=${quoted(id)}`,
  });
  if (kind === "room") {
    return [
      inRoom("messages"),
      inRoom("reactions", "message.room"),
      inRoom("room_members"),
      inRoom("rooms", "id"),
      inRoom("pins"),
      inRoom("polls"),
    ];
  }
  if (kind === "user")
    return [{ collection: "friend_requests" }, own("room_keys"), own("achievements"), own("notifications")];
  if (channel === "room-updates") return [{ collection: "rooms" }, own("room_members")];
  return [];
}

/** The rooms that are subscribed now. */
export class RoomViews implements RoomStores {
  readonly open = new Map<string, RoomView>();

  loaded(roomId: string, messages: Message[]): void {
    const view = this.open.get(roomId);
    if (view) for (const message of messages) view.keep(message);
  }
  changed(message: Message): void {
    this.open.get(message.room_id)?.put(message);
  }
  refresh(roomId: string, messageId: string): void {
    void this.open.get(roomId)?.refresh(messageId);
  }
  deleted(roomId: string, messageId: string): void {
    this.open.get(roomId)?.drop(messageId);
  }
}

const IDLE: Metrics = {
  ...{ pingMs: null, lastLatencyMs: null, medianLatencyMs: null },
  ...{ delivered: 0, recovered: 0, resyncs: 0, reconnects: 0 },
};
const OFF: ConnectionState = { state: "idle", transport: "pocketbase", since: 0 };

interface Parts {
  context: Context;
  people: People;
  reader: MessageReader;
  outbox: Outbox<Message>;
  views: RoomViews;
  list: RoomList | null;
}

export function realtimeModule({ context, people, reader, outbox, views, list }: Parts): RealtimeModule {
  const { realtime } = context;

  function connected(method: string): Realtime {
    if (realtime) return realtime;
    throw new UnsupportedError(method, "realtime is turned off in the configuration.");
  }

  /** Subscription of a room's channel, renewed when `room-updates` reports regained access. */
  function openRoom(view: RoomView, viewer: Viewer): Unsubscribe {
    if (!realtime) return () => {};
    const channel = `room:${view.roomId}`;
    let isLost = false;
    // Messages go through the shared view; other events go to this viewer directly.
    const own = new RoomView(view.roomId, reader, people);
    own.viewers.add(viewer);
    const plain = own.channel(viewer.handlers.onPresence !== undefined);
    const handlers: ChannelHandlers = {
      ...plain,
      onEvent: (event) => !isMessage(event) && own.event(event),
      onClosed: (why) => {
        isLost = !why.deleted;
        plain.onClosed?.(why);
      },
    };
    const ends = [
      realtime.subscribe(channel, handlers),
      realtime.subscribe("room-updates", {
        onEvent: ({ action, collection, record }) => {
          const id = collection === "room_members" ? text(record.room) : record.id;
          if (!isLost || id !== view.roomId || action === "delete" || action === "leave") return;
          isLost = false;
          realtime.resubscribe(channel);
          viewer.handlers.onResync?.("missed");
        },
        onReady: () => {
          if (!isLost) return;
          isLost = false;
          realtime.resubscribe(channel); // still without access: closed again
        },
      }),
    ];
    return () => ends.forEach((end) => end());
  }

  return {
    subscribeToRoom(roomId, callback, handlers = {}) {
      if (!context.userId) tellGuest(handlers);
      const view = views.open.get(roomId) ?? new RoomView(roomId, reader, people);
      const isFirst = !view.isWatched;
      views.open.set(roomId, view);
      const viewer: Viewer = { callback, handlers };
      // A single listener for messages per view, so that a change is reported once per viewer.
      if (isFirst) view.end = realtime?.subscribe(`room:${roomId}`, messagesOnly(view)) ?? (() => {});
      view.viewers.add(viewer);
      for (const draft of outbox.list(roomId)) callback(reader.fromDraft(draft));
      const end = openRoom(view, viewer);
      return () => {
        if (!view.viewers.delete(viewer)) return;
        end();
        if (view.isWatched) return;
        view.end();
        views.open.delete(roomId);
      };
    },

    subscribeToUserStatus(userId, callback) {
      return realtime?.onStatus(userId, (state) => callback(state.status, state)) ?? (() => {});
    },

    subscribeToRoomUpdates(callback, handlers) {
      if (!context.userId) tellGuest(handlers);
      return list?.watch(callback, handlers) ?? (() => {});
    },

    subscribeToUser(handlers) {
      const channel = `user:${context.me()}`;
      const notifications = new Sequence();
      // An event has no names and no message, so the notification is read; the bare event is better than nothing.
      const withNames = async (record: RecordModel) => {
        const read = context.call(undefined, (request) =>
          context.collection("notifications").getOne(record.id, { ...request, expand: NOTIFICATION_PARTS }),
        );
        return read.catch((error: BackendError) => (error.code === "not_found" ? null : record));
      };
      return (
        realtime?.subscribe(channel, {
          onEvent: ({ action, collection, record }) => {
            if (collection === "friend_requests") {
              const status = text(record.status) as FriendRequest["status"];
              const change = action as "create" | "update" | "delete";
              handlers.onFriendRequest?.({
                action: change,
                id: record.id,
                from: text(record.from),
                to: text(record.to),
                status,
              });
            }
            if (action === "delete") return;
            if (collection === "notifications") {
              const read = withNames(record);
              notifications.run(async () => {
                const complete = await read;
                if (complete) handlers.onNotification?.(toNotification(complete, context.language));
              });
            }
            if (collection === "room_keys") {
              const version = Number(record.key_version);
              handlers.onRoomKey?.({ roomId: text(record.room), encryptedKey: text(record.encrypted_key), version });
            }
            if (collection === "achievements") {
              const unlocked_at = date(record.unlocked_at);
              handlers.onAchievement?.(
                present({ id: text(record.achievement), progress: Number(record.progress), unlocked_at }),
              );
            }
          },
          onReady: () => handlers.onReady?.(),
          onResync: (reason) => handlers.onResync?.(reason),
          onError: (error) => handlers.onError?.(error),
        }) ?? (() => {})
      );
    },

    sendTyping: (roomId) => realtime?.typing(`room:${roomId}`),
    setStatus: async (mode) => connected("setStatus").setStatus(mode),
    getStatus: async () => connected("getStatus").getStatus(),
    setIdle: async (idle) => connected("setIdle").setIdle(idle),
    getStatuses: async (userIds) => ({ statuses: await connected("getStatuses").statuses(userIds) }),
    presence: async (roomId) => ({ userIds: await connected("presence").presence(`room:${roomId}`) }),
    connectionState: () => realtime?.state() ?? OFF,
    onConnectionState: (callback) => realtime?.onState(callback) ?? (() => {}),
    metrics: () => realtime?.metrics() ?? IDLE,
  };
}

/** A subscription before the login starts with the login; until then an error says what is missing. */
function tellGuest(handlers?: { onError?(error: BackendError): void }): void {
  handlers?.onError?.(new UnauthorizedError("Nobody is logged in."));
}

/** Handlers for messages and reactions of a view; a resync empties the view. */
function messagesOnly(view: RoomView): ChannelHandlers {
  return {
    onEvent: (event) => isMessage(event) && view.event(event),
    onResync: () => view.forget(),
  };
}

function isMessage({ collection }: RecordEvent): boolean {
  return collection === "messages" || collection === "reactions";
}
