// Realtime for any PocketBase application: events of records, signals, presence and online status over the gateway,
// with PocketBase's own realtime in reserve. Knows nothing of the chat.

import type PocketBase from "pocketbase";
import { websocketUrl } from "./config.js";
import { TemporaryError, UnauthorizedError, UnsupportedError, type BackendError } from "./errors.js";
import { GatewayTransport } from "./realtime/gateway.js";
import { Listeners } from "./realtime/listeners.js";
import { Meter } from "./realtime/meter.js";
import { ServerSentTransport } from "./realtime/server-sent.js";
import type {
  ChannelHandlers,
  ConnectionState,
  Link,
  Metrics,
  Realtime,
  RealtimeOptions,
  Unsubscribe,
  UserMode,
  UserState,
} from "./realtime/types.js";

export type * from "./realtime/types.js";

const FALLBACK_AFTER_MS = 8000;
const TYPING_EVERY_MS = 3000;
const WAKE_AFTER_MS = 20_000;
/** Most users of one status request. */
const STATUS_BATCH = 500;
const UNKNOWN: UserState = { status: "offline", last_seen: null };

/** Connects as soon as somebody is logged in and a channel is subscribed. */
export function createRealtime(options: RealtimeOptions): Realtime {
  return new Connection(options);
}

class Connection implements Realtime {
  private readonly pocketbase: PocketBase;
  private readonly url: string | null;
  private readonly channels = new Map<string, Listeners>();
  private readonly stateListeners = new Set<(state: ConnectionState) => void>();
  private readonly lastTyping = new Map<string, number>();
  private readonly lastState = new Map<string, UserState>();
  private readonly meter = new Meter();
  private readonly ends: (() => void)[] = [];
  private gateway: GatewayTransport | null = null;
  private reserve: ServerSentTransport | null = null;
  private patience: ReturnType<typeof setTimeout> | undefined;
  private recovering = new Set<string>();
  private user: string;
  private wasConnected = false;
  private isClosed = false;
  private current: ConnectionState;

  constructor(private readonly options: RealtimeOptions) {
    this.pocketbase = options.pocketbase;
    const transport = options.transport ?? (options.url ? "auto" : "pocketbase");
    if (transport !== "pocketbase" && !options.url)
      throw new Error("createRealtime: url, the gateway's address, is missing.");
    this.url = transport !== "pocketbase" && options.url ? websocketUrl(options.url) : null;
    this.current = { state: "idle", transport: this.url ? "gateway" : "pocketbase", since: Date.now() };
    this.user = userOf(this.pocketbase);
    // Calls back also for changes in other tabs, which share the stored login.
    this.ends.push(this.pocketbase.authStore.onChange(() => this.loginChanged()));
    this.ends.push(onWake(options.wakeAfter ?? WAKE_AFTER_MS, () => this.reconnect()));
  }

  // ---- connection

  private start(isAsked = false): void {
    if (this.gateway || this.reserve || this.current.state === "closed" || this.isClosed) return;
    if (!this.user || (this.channels.size === 0 && !isAsked)) return;
    this.enter("connecting");
    if (!this.url) {
      this.startReserve();
      return;
    }
    const { streams, websocket } = this.options;
    this.gateway = new GatewayTransport({ url: this.url, streams, websocket }, this.pocketbase, {
      connecting: () => this.interrupted(),
      connected: (link) => this.established(link),
      ended: (error) => this.end(error),
      recovered: (channel, running) => void (running ? this.recovering.add(channel) : this.recovering.delete(channel)),
    });
    for (const listeners of this.channels.values()) this.gateway.add(listeners);
    this.gateway.connect();
  }

  private interrupted(): void {
    if (!this.reserve) this.enter(this.wasConnected ? "reconnecting" : "connecting");
    if ((this.options.transport ?? "auto") !== "auto") return;
    this.patience ??= setTimeout(() => this.startReserve(), this.options.fallbackAfter ?? FALLBACK_AFTER_MS);
  }

  private established(link: Link): void {
    clearTimeout(this.patience);
    this.patience = undefined;
    if (this.reserve) {
      this.reserve.close();
      this.reserve = null;
    }
    this.enter("connected", "gateway", { link });
    this.ping().catch(() => {}); // a figure for the panel only
  }

  /** PocketBase stands in, while the gateway's client goes on trying. */
  private startReserve(): void {
    if (this.reserve || !this.user) return;
    const interrupted = this.gateway !== null;
    this.reserve = new ServerSentTransport(this.pocketbase, this.options.fallback ?? (() => []), {
      connecting: () => this.reserve && this.enter("reconnecting", "pocketbase"),
      connected: () => this.reserve && this.enter("connected", "pocketbase"),
      ended: (error) => this.end(error),
    });
    if (interrupted) for (const listeners of this.channels.values()) listeners.resync("transport");
    for (const listeners of this.channels.values()) this.reserve.add(listeners);
  }

  private stop(): void {
    clearTimeout(this.patience);
    this.patience = undefined;
    this.gateway?.close();
    this.reserve?.close();
    this.gateway = this.reserve = null;
    this.wasConnected = false;
    this.lastState.clear();
  }

  /** The login is over: an attempt would fail in the same way. */
  private end(error: BackendError): void {
    this.stop();
    this.enter("closed", this.current.transport, { error });
    for (const listeners of this.channels.values()) listeners.tell((handlers) => handlers.onError?.(error));
  }

  private loginChanged(): void {
    const user = userOf(this.pocketbase);
    if (user === this.user && this.current.state !== "closed") {
      if (user) this.gateway?.setToken(this.pocketbase.authStore.token);
      return;
    }
    if (!user && this.current.state === "closed") {
      this.user = user; // the reason of the end stays visible until the next login
      return;
    }
    this.stop();
    this.user = user;
    this.enter("idle");
    this.start();
  }

  private enter(
    state: ConnectionState["state"],
    transport = this.current.transport,
    details: Pick<ConnectionState, "link" | "error"> = {},
  ): void {
    if (state === this.current.state && transport === this.current.transport) return;
    if (state === "connected") {
      if (this.wasConnected) this.meter.reconnect();
      this.wasConnected = true;
    }
    this.current = { state, transport, since: Date.now(), ...details };
    for (const listener of [...this.stateListeners]) listener(this.current);
  }

  reconnect(): void {
    this.gateway?.reconnect();
  }

  close(): void {
    this.isClosed = true;
    this.stop();
    this.channels.clear();
    for (const end of this.ends.splice(0)) end();
    this.enter("idle");
    this.stateListeners.clear();
  }

  state(): ConnectionState {
    return this.current;
  }

  onState(callback: (state: ConnectionState) => void): Unsubscribe {
    this.stateListeners.add(callback);
    return () => void this.stateListeners.delete(callback);
  }

  metrics(): Metrics {
    return this.meter.read();
  }

  async ping(): Promise<number> {
    const start = performance.now();
    await this.rpc("status.get", { users: [] });
    this.meter.pingMs = performance.now() - start;
    return this.meter.pingMs;
  }

  // ---- channels

  subscribe(channel: string, handlers: ChannelHandlers): Unsubscribe {
    const listeners = this.channels.get(channel) ?? this.listenersOf(channel);
    this.channels.set(channel, listeners);
    listeners.all.add(handlers);
    if (!this.gateway && !this.reserve) this.start();
    else this.join(listeners, handlers);
    return () => {
      if (!listeners.all.delete(handlers) || listeners.all.size > 0) return;
      this.channels.delete(channel);
      this.lastTyping.delete(channel);
      this.gateway?.remove(channel);
      this.reserve?.remove(channel);
    };
  }

  /** A later listener of an open channel is welcomed alone. */
  private join(listeners: Listeners, handlers: ChannelHandlers): void {
    const alone =
      listeners.all.size > 1 &&
      new Listeners(
        listeners.channel,
        this.pocketbase,
        () => {},
        () => {},
      );
    if (alone) alone.all.add(handlers);
    this.gateway?.add(listeners, alone || undefined);
    this.reserve?.add(listeners, alone || undefined);
  }

  private listenersOf(channel: string): Listeners {
    return new Listeners(
      channel,
      this.pocketbase,
      (event) => this.meter.event(event, this.recovering.has(channel)),
      () => this.meter.resync(),
    );
  }

  resubscribe(channel: string): void {
    this.gateway?.resubscribe(channel);
  }

  typing(channel: string): void {
    const last = this.lastTyping.get(channel) ?? 0;
    if (Date.now() - last < TYPING_EVERY_MS || !this.gateway?.isConnected) return;
    this.lastTyping.set(channel, Date.now());
    this.signal(channel, { type: "typing" }).catch(() => {}); // a notice of a moment: nobody waits for it
  }

  async signal(channel: string, data: { type: string }): Promise<void> {
    await this.connected("signal").publish(channel, data);
  }

  async presence(channel: string): Promise<string[]> {
    return this.connected("presence").presence(channel);
  }

  // ---- status

  onStatus(userId: string, callback: (state: UserState) => void): Unsubscribe {
    const tell = (state: UserState) => {
      this.lastState.set(userId, state);
      callback(state);
    };
    const known = this.lastState.get(userId);
    if (known) callback(known);
    return this.subscribe(`status:${userId}`, {
      onSignal: ({ type, data }) => type === "state" && tell(plain(data as unknown as UserState)),
      onReady: () => this.reserve && tell(UNKNOWN),
    });
  }

  async statuses(userIds: string[]): Promise<Record<string, UserState>> {
    const statuses: Record<string, UserState> = {};
    for (let i = 0; i < userIds.length; i += STATUS_BATCH) {
      const users = userIds.slice(i, i + STATUS_BATCH);
      const answer = await this.rpc<{ statuses: Record<string, UserState> }>("status.get", { users });
      for (const [user, state] of Object.entries(answer.statuses)) statuses[user] = plain(state);
    }
    return statuses;
  }

  async setStatus(mode: UserMode): Promise<void> {
    await this.rpc("status.set", { status: mode });
  }

  async getStatus(): Promise<{ mode: UserMode }> {
    const { mode } = await this.rpc<{ mode: UserMode }>("status.set", {});
    return { mode };
  }

  async setIdle(idle: boolean): Promise<void> {
    await this.rpc("status.idle", { idle });
  }

  private rpc<T>(method: string, data: object): Promise<T> {
    return this.connected(method).rpc<T>(method, data);
  }

  /** The gateway's transport; a request connects too, without a subscription. */
  private connected(method: string): GatewayTransport {
    if (!this.url) throw new UnsupportedError(method, "PocketBase's own realtime has no such function.");
    if (this.current.error) throw this.current.error;
    if (!this.user) throw new UnauthorizedError("Nobody is logged in.");
    this.start(true);
    if (this.gateway) return this.gateway;
    throw new TemporaryError("network", "The gateway is not connected.");
  }
}

function userOf({ authStore }: PocketBase): string {
  return authStore.token && authStore.record ? `${authStore.record.collectionName}/${authStore.record.id}` : "";
}

function plain({ status, last_seen }: UserState): UserState {
  return { status, last_seen };
}

/**
 * Calls back when the device wakes up: a clock that stood still tells. The sockets of before look open and are not, so
 * the connection is renewed at once instead of after a missing ping.
 */
function onWake(gapMs: number, woken: () => void): () => void {
  let last = Date.now();
  const clock = setInterval(() => {
    const gap = Date.now() - last;
    last = Date.now();
    if (gap > gapMs) woken();
  }, gapMs / 4);
  (clock as { unref?: () => void }).unref?.(); // in Node.js, the clock must not keep the process alive
  return () => clearInterval(clock);
}
