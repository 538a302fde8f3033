// Types of the realtime part, which knows channels and records but nothing of the chat.

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
  transport: "gateway" | "pocketbase";
  /** When this state began, in unix milliseconds. */
  since: number;
  error?: BackendError;
}

export interface Metrics {
  /** Round trip of the last ping in milliseconds; `null` if unknown. */
  pingMs: number | null;
  /** From the record's `updated` to its arrival, in milliseconds; the last and the median of the last 100. */
  lastLatencyMs: number | null;
  medianLatencyMs: number | null;
  delivered: number;
  /** Events that arrived by recovery after an interruption. */
  recovered: number;
  /** Times that a position could not be recovered. */
  resyncs: number;
  reconnects: number;
}
