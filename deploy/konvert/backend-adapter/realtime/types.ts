// Types of the realtime part, which knows channels and records but nothing of the chat.

import type PocketBase from "pocketbase";
import type { RecordModel } from "pocketbase";
import type { BackendError } from "../errors.js";

/** Status of a user as others see it. */
export type RealtimeStatus = "online" | "away" | "dnd" | "offline";

/** Status that a user may set. */
export type UserMode = "online" | "away" | "dnd" | "invisible";

export interface UserState {
  status: RealtimeStatus;
  /** Offline users: last sign of life, in unix milliseconds, `null` if unknown. Others: beginning of this status. */
  last_seen: number | null;
}

export interface ConnectionState {
  /**
   * "idle": nothing subscribed or nobody logged in. "connecting": first attempt. "reconnecting": the connection was
   * lost. "closed": the login is over (see `error`), and nothing is retried.
   */
  state: "idle" | "connecting" | "connected" | "reconnecting" | "closed";
  /** "polling": the old backend on Supabase is asked again and again. */
  transport: "gateway" | "pocketbase" | "polling";
  /** While connected to the gateway: by which of its transports. */
  link?: Link;
  /** When this state began, in unix milliseconds. */
  since: number;
  error?: BackendError;
}

/** Transport of the gateway: a WebSocket, or a stream for networks that let no WebSocket through. */
export type Link = "websocket" | "http_stream" | "sse";

/** Addresses of the gateway's streams (proto/README.md). */
export interface StreamAddresses {
  httpStream?: string;
  sse?: string;
  /** Where the commands of a stream's client go. */
  emulation?: string;
}

export interface Metrics {
  /** Round trip to the gateway in milliseconds, measured at each connect and by `ping`; `null` if unknown. */
  pingMs: number | null;
  /** From the record's `updated` to its arrival, by the clocks of server and client, in milliseconds. */
  lastLatencyMs: number | null;
  /** Median of the last 100. */
  medianLatencyMs: number | null;
  delivered: number;
  /** Events that arrived by recovery after an interruption. */
  recovered: number;
  /** Times that changes may have been missed. */
  resyncs: number;
  reconnects: number;
}

/** "auto": the gateway, and PocketBase's own realtime while the gateway cannot be reached. */
export type RealtimeTransport = "auto" | "gateway" | "pocketbase";

export type Unsubscribe = () => void;

export type ResyncReason =
  | "missed" // the history does not reach back to the last position, or the transport keeps none
  | "transport" // the transport changed, and changes may have been missed
  | "reload"; // the server changed many records at once

export type EventAction = "create" | "update" | "delete" | "join" | "leave";

/** A change of a record. After "delete" and "leave", the record may have no more than its id. */
export interface RecordEvent {
  action: EventAction;
  collection: string;
  record: RecordModel;
}

export interface Signal {
  type: string;
  userId: string;
  data: Record<string, unknown>;
}

/** Why a subscription ended: a code of proto/README.md. */
export interface Closed {
  code: number;
  reason: string;
  /** Whether the record of the channel is gone. */
  deleted: boolean;
}

export interface ChannelHandlers {
  onEvent?(event: RecordEvent): void;
  /** `until`: when the notice should disappear, in unix milliseconds. */
  onTyping?(typing: { userId: string; until: number }): void;
  /** Other signals than typing. */
  onSignal?(signal: Signal): void;
  /** Ids of the users whose clients are subscribed: at the start and after each change. */
  onPresence?(userIds: string[]): void;
  /** Changes may have been missed: load the records again. */
  onResync?(reason: ResyncReason): void;
  /** Subscribed, for the first time or again. Load the records now: later changes arrive as events. */
  onReady?(): void;
  /** The access ended. `resubscribe` of the channel tries again. */
  onClosed?(why: Closed): void;
  onError?(error: BackendError): void;
}

/** One subscription of PocketBase's own realtime that stands in for a channel. */
export interface FallbackTopic {
  collection: string;
  filter?: string;
}

export interface RealtimeOptions {
  pocketbase: PocketBase;
  /** Address of the gateway; http(s) addresses and addresses without the path are completed. */
  url?: string;
  /** "auto" unless given, or "pocketbase" without `url`. */
  transport?: RealtimeTransport;
  /** Topics of PocketBase's realtime for a channel. Without it, channels are silent while PocketBase stands in. */
  fallback?: (channel: string) => FallbackTopic[];
  /** Milliseconds without a connection to the gateway before PocketBase stands in; 8000 unless given. */
  fallbackAfter?: number;
  /** Gap in the clock, in milliseconds, that counts as a sleep of the device; 20000 unless given. */
  wakeAfter?: number;
  /**
   * Addresses of the gateway's streams, which are tried when a WebSocket does not get through; derived from `url` unless
   * given. `false`: WebSockets alone.
   */
  streams?: StreamAddresses | false;
  /** Constructor of WebSockets, where the platform has none (Node.js before 22). */
  websocket?: unknown;
}

export interface Realtime {
  /** Listens to a channel; several listeners share one subscription. */
  subscribe(channel: string, handlers: ChannelHandlers): Unsubscribe;
  /** Subscribes again after `onClosed`; does nothing for an open or unknown channel. */
  resubscribe(channel: string): void;
  /** Tells the subscribers of a channel that the user is typing; at most every three seconds. */
  typing(channel: string): void;
  /** Sends a signal, an object with a `type` that the gateway accepts; reaches those who are connected now. */
  signal(channel: string, data: { type: string; [key: string]: unknown }): Promise<void>;
  /** Ids of the users whose clients are subscribed to a channel that is subscribed here. */
  presence(channel: string): Promise<string[]>;
  onStatus(userId: string, callback: (state: UserState) => void): Unsubscribe;
  statuses(userIds: string[]): Promise<Record<string, UserState>>;
  setStatus(mode: UserMode): Promise<void>;
  getStatus(): Promise<{ mode: UserMode }>;
  /** Tells that this device is idle, or in use again: a user whose devices are all idle is "away". */
  setIdle(idle: boolean): Promise<void>;
  state(): ConnectionState;
  onState(callback: (state: ConnectionState) => void): Unsubscribe;
  metrics(): Metrics;
  ping(): Promise<number>;
  /** Renews the connection at once, without losing positions. Called by itself when the device wakes up. */
  reconnect(): void;
  /** Ends the connection and forgets all listeners. */
  close(): void;
}
