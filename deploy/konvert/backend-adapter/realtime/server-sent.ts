// The transport in reserve: PocketBase's own realtime (server-sent events). It keeps no history, so each interruption
// is followed by a resync, and it has no signals, presence and status.

import type PocketBase from "pocketbase";
import type { UnsubscribeFunc } from "pocketbase";
import { toBackendError, type BackendError } from "../errors.js";
import { isEvent, type Listeners } from "./listeners.js";
import type { FallbackTopic } from "./types.js";

export interface ServerSentEvents {
  connecting(): void;
  connected(): void;
  ended(error: BackendError): void;
}

/** Pause before another attempt to subscribe, in milliseconds. */
const RETRY_MS = 2000;

export class ServerSentTransport {
  private readonly open = new Map<string, Promise<UnsubscribeFunc>[]>();
  private readonly listeners = new Map<string, Listeners>();
  private readonly retries = new Map<string, ReturnType<typeof setTimeout>>();
  private greeting: Promise<UnsubscribeFunc> | null = null;
  private connections = 0;
  private closed = false;

  constructor(
    private readonly pocketbase: PocketBase,
    private readonly topics: (channel: string) => FallbackTopic[],
    private readonly events: ServerSentEvents,
  ) {
    pocketbase.realtime.onDisconnect = (subscriptions) => {
      if (!this.closed && subscriptions.length > 0) this.events.connecting();
    };
  }

  /** PocketBase's first event of each connection; those after the first follow an interruption. */
  private greet(): void {
    this.greeting ??= this.pocketbase.realtime.subscribe("PB_CONNECT", () => {
      if (this.closed) return;
      this.events.connected();
      this.connections += 1;
      if (this.connections === 1) return;
      for (const listeners of this.listeners.values()) listeners.resync("missed");
    });
    this.greeting.catch(() => (this.greeting = null)); // the channels report the reason
  }

  /** Subscribes a channel. `newcomer` is welcomed alone if the channel is open already. */
  add(listeners: Listeners, newcomer = listeners): void {
    const { channel } = listeners;
    if (this.open.has(channel)) return newcomer.tell((handlers) => handlers.onReady?.());
    this.listeners.set(channel, listeners);
    this.greet();
    const subscriptions = this.topics(channel).map(({ collection, filter }) =>
      this.pocketbase.collection(collection).subscribe(
        "*",
        ({ action, record }) => {
          const event = { action, collection, record };
          if (isEvent(event)) listeners.receive(event);
        },
        filter ? { filter } : {},
      ),
    );
    this.open.set(channel, subscriptions);
    Promise.all(subscriptions).then(
      () => {
        if (this.open.get(channel) !== subscriptions) return;
        this.events.connected();
        listeners.tell((handlers) => handlers.onReady?.());
      },
      (error) => this.failed(listeners, subscriptions, toBackendError(error)),
    );
  }

  private failed(listeners: Listeners, subscriptions: Promise<UnsubscribeFunc>[], problem: BackendError): void {
    const { channel } = listeners;
    if (this.open.get(channel) !== subscriptions) return;
    this.remove(channel);
    if (problem.code === "unauthorized" || problem.code === "banned") return this.events.ended(problem);
    listeners.tell((handlers) => handlers.onError?.(problem));
    if (problem.temporary || problem.code === "aborted") {
      this.retries.set(channel, setTimeout(() => this.add(listeners), RETRY_MS));
    }
  }

  remove(channel: string): void {
    clearTimeout(this.retries.get(channel));
    this.retries.delete(channel);
    this.listeners.delete(channel);
    const subscriptions = this.open.get(channel) ?? [];
    this.open.delete(channel);
    for (const subscription of subscriptions) release(subscription);
  }

  close(): void {
    this.closed = true;
    for (const channel of [...this.open.keys(), ...this.retries.keys()]) this.remove(channel);
    if (this.greeting) release(this.greeting);
    this.greeting = null;
  }
}

/** Ends a subscription once it exists; without a connection there is nothing to end. */
function release(subscription: Promise<UnsubscribeFunc>): void {
  subscription.then((unsubscribe) => unsubscribe()).catch(() => {});
}
