// Listeners of one channel, and the order of its events.

import type PocketBase from "pocketbase";
import type { RecordModel } from "pocketbase";
import { toBackendError } from "../errors.js";
import type { ChannelHandlers, EventAction, RecordEvent, ResyncReason } from "./types.js";

/** Milliseconds that a typing notice is shown after its last signal. */
const TYPING_MS = 5000;

/** An event as the gateway and PocketBase send it. */
export interface RawEvent {
  action: EventAction | "reload";
  collection: string;
  record: { id: string } & Partial<RecordModel>;
  truncated?: boolean;
}

export function isEvent(data: unknown): data is RawEvent {
  const event = data as Partial<RawEvent> | null;
  return typeof event?.action === "string" && typeof event.collection === "string" && typeof event.record === "object";
}

export class Listeners {
  readonly all = new Set<ChannelHandlers>();
  /** Events wait here while a truncated record is fetched, so that the order stays. */
  private waiting: Promise<void> | null = null;

  constructor(
    readonly channel: string,
    private readonly pocketbase: PocketBase,
    private readonly counted: (event: RecordEvent) => void,
    private readonly onResync: () => void,
  ) {}

  get wantsPresence(): boolean {
    return [...this.all].some((handlers) => handlers.onPresence);
  }

  /** A listener's exception must not stop the others, nor the transport: it is reported as an uncaught error. */
  tell(call: (handlers: ChannelHandlers) => void): void {
    for (const handlers of [...this.all]) {
      try {
        call(handlers);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  resync(reason: ResyncReason): void {
    this.onResync();
    this.tell((handlers) => handlers.onResync?.(reason));
  }

  typing(userId: string): void {
    this.tell((handlers) => handlers.onTyping?.({ userId, until: Date.now() + TYPING_MS }));
  }

  receive(raw: RawEvent): void {
    const fetched = raw.truncated && raw.action !== "delete" && raw.action !== "leave";
    if (!fetched && !this.waiting) return this.deliver(raw);
    const turn = (this.waiting ?? Promise.resolve()).then(async () => {
      if (!fetched) return this.deliver(raw);
      try {
        const record = await this.pocketbase.collection(raw.collection).getOne(raw.record.id, { requestKey: null });
        this.deliver({ ...raw, record });
      } catch (error) {
        const problem = toBackendError(error);
        if (problem.code === "not_found") return; // deleted meanwhile: its own event follows
        this.tell((handlers) => handlers.onError?.(problem));
        this.resync("missed");
      }
    });
    this.waiting = turn;
    void turn.then(() => {
      if (this.waiting === turn) this.waiting = null;
    });
  }

  private deliver(raw: RawEvent): void {
    if (raw.action === "reload") return this.resync("reload");
    const event: RecordEvent = { action: raw.action, collection: raw.collection, record: raw.record as RecordModel };
    this.counted(event);
    this.tell((handlers) => handlers.onEvent?.(event));
  }
}
