// The transport to the gateway: Centrifuge's client, one subscription per channel.

import { Centrifuge, UnauthorizedError as Final, type PublicationContext, type Subscription } from "centrifuge";
import type PocketBase from "pocketbase";
import { BackendError, TemporaryError, UnauthorizedError, toBackendError } from "../errors.js";
import { isEvent, type Listeners } from "./listeners.js";
import { streamsOf } from "./streams.js";
import type { Link, StreamAddresses, UserState } from "./types.js";

/** Close codes that end the login, with the class of error that callers branch on. */
const BANNED = 4501;
const LOGIN_OVER = new Set([101, 3500, 4500, 4502, 4503, 4505]);
/** "connection limit": the user has too many tabs; worth another attempt after a while. */
const TOO_MANY = 3504;
const TOO_MANY_PAUSE_MS = 30_000;
const CHANNEL_DELETED = 2102;

export interface GatewayEvents {
  connecting(): void;
  connected(link: Link): void;
  /** Nothing is retried. */
  ended(error: BackendError): void;
  recovered(channel: string, running: boolean): void;
}

export interface GatewayAddresses {
  /** Address of the WebSocket. */
  url: string;
  streams?: StreamAddresses | false | undefined;
  websocket?: unknown;
}

interface Open {
  subscription: Subscription;
  joins: boolean;
  epoch: string;
  offset: number;
  /** Users by client id, maintained for listeners to the presence. */
  clients: Map<string, string>;
}

export class GatewayTransport {
  private readonly client: Centrifuge;
  private readonly open = new Map<string, Open>();
  private unbatched: (() => void)[] = [];
  private retry: ReturnType<typeof setTimeout> | undefined;
  private refusal: BackendError | null = null;

  constructor(
    { url, streams, websocket }: GatewayAddresses,
    private readonly pocketbase: PocketBase,
    private readonly events: GatewayEvents,
  ) {
    const { endpoints, emulation } = streamsOf(url, streams);
    this.client = new Centrifuge([{ transport: "websocket", endpoint: url }, ...endpoints], {
      token: pocketbase.authStore.token,
      getToken: () => this.freshToken(),
      emulationEndpoint: emulation,
      ...(websocket ? { websocket } : {}),
      name: "konvert-adapter",
      minReconnectDelay: 300,
      maxReconnectDelay: 10_000,
    });
    this.client.on("connecting", () => events.connecting());
    this.client.on("connected", ({ transport }) => events.connected(transport as Link));
    this.client.on("disconnected", ({ code, reason }) => this.disconnected(code, reason));
  }

  get isConnected(): boolean {
    return this.client.state === "connected";
  }

  connect(): void {
    this.client.connect();
  }

  /** A new token of the same user: used at the next connect and refresh. */
  setToken(token: string): void {
    this.client.setToken(token);
  }

  reconnect(): void {
    if (this.client.state === "disconnected") return;
    this.client.disconnect();
    this.client.connect();
  }

  close(): void {
    clearTimeout(this.retry);
    this.client.removeAllListeners();
    for (const channel of [...this.open.keys()]) this.remove(channel);
    this.client.disconnect();
  }

  private async freshToken(): Promise<string> {
    const { authStore } = this.pocketbase;
    try {
      if (!authStore.token) throw new UnauthorizedError("Nobody is logged in.");
      const collection = authStore.record?.collectionName ?? "users";
      const { token } = await this.pocketbase.collection(collection).authRefresh({ requestKey: null });
      return token;
    } catch (error) {
      const problem = toBackendError(error);
      if (problem.temporary) throw problem; // the client tries again
      this.refusal = problem instanceof UnauthorizedError ? problem : ended(problem);
      throw new Final("login over");
    }
  }

  private disconnected(code: number, reason: string): void {
    if (code === 0) return; // by this side
    if (code === TOO_MANY) {
      this.retry = setTimeout(() => this.client.connect(), TOO_MANY_PAUSE_MS);
      this.events.connecting();
    } else this.events.ended(this.reasonOf(code, reason));
  }

  private reasonOf(code: number, reason: string): BackendError {
    if (code === BANNED) return new UnauthorizedError("This account is banned.", { code: "banned", status: code });
    if (this.refusal) return this.refusal;
    if (LOGIN_OVER.has(code)) return new UnauthorizedError(`The login is over: ${reason}.`, { status: code });
    return new TemporaryError("server", `The gateway ended the connection: ${reason} (${code}).`);
  }

  // ---- channels

  /** Subscribes of one turn leave in one frame, so that the gateway asks PocketBase once. */
  private batch(work: () => void): void {
    if (this.unbatched.push(work) > 1) return;
    queueMicrotask(() => {
      const works = this.unbatched;
      this.unbatched = [];
      this.client.startBatching();
      for (const each of works) each();
      this.client.stopBatching();
    });
  }

  /** Subscribes a channel. `newcomer` is welcomed alone if the channel is open already. */
  add(listeners: Listeners, newcomer = listeners): void {
    const { channel } = listeners;
    const joins = listeners.wantsPresence;
    const existing = this.open.get(channel);
    if (existing && (existing.joins || !joins)) {
      if (existing.subscription.state === "subscribed") this.welcome(newcomer, existing);
      return;
    }
    const since = existing?.epoch ? { offset: existing.offset, epoch: existing.epoch } : undefined;
    if (existing) this.remove(channel);
    const subscription = this.client.newSubscription(channel, {
      joinLeave: joins,
      data: { echo: false },
      ...(since ? { since } : {}),
    });
    const open: Open = {
      subscription,
      joins,
      epoch: since?.epoch ?? "",
      offset: since?.offset ?? 0,
      clients: new Map(),
    };
    this.open.set(channel, open);
    this.listen(listeners, open);
    this.batch(() => {
      if (this.open.get(channel) === open) subscription.subscribe();
    });
  }

  private listen(listeners: Listeners, open: Open): void {
    const { subscription } = open;
    subscription.on("subscribed", (context) => {
      if (context.streamPosition) Object.assign(open, context.streamPosition);
      if (context.wasRecovering && !context.recovered) listeners.resync("missed");
      if (context.hasRecoveredPublications) {
        this.events.recovered(listeners.channel, true);
        queueMicrotask(() => this.events.recovered(listeners.channel, false));
      }
      if (context.data !== undefined) listeners.tell((handlers) => handlers.onSignal?.(state(context.data)));
      this.welcome(listeners, open);
    });
    subscription.on("publication", (context) => this.publication(listeners, open, context));
    subscription.on("join", ({ info }) => {
      open.clients.set(info.client, info.user);
      this.showPresence(listeners, open);
    });
    subscription.on("leave", ({ info }) => {
      open.clients.delete(info.client);
      this.showPresence(listeners, open);
    });
    subscription.on("unsubscribed", ({ code, reason }) => {
      if (code === 0) return; // by this side
      open.clients.clear();
      listeners.tell((handlers) => handlers.onClosed?.({ code, reason, deleted: code === CHANNEL_DELETED }));
    });
  }

  private publication(listeners: Listeners, open: Open, { data, info, offset }: PublicationContext): void {
    if (offset !== undefined) open.offset = offset;
    if (info) {
      const signal = data as { type: string };
      if (signal.type === "typing") listeners.typing(info.user);
      else
        listeners.tell((handlers) =>
          handlers.onSignal?.({ type: signal.type, userId: info.user, data: { ...signal } }),
        );
    } else if (isEvent(data)) {
      listeners.receive(data);
    } else {
      listeners.tell((handlers) => handlers.onSignal?.(state(data)));
    }
  }

  private welcome(listeners: Listeners, open: Open): void {
    listeners.tell((handlers) => handlers.onReady?.());
    if (listeners.wantsPresence) void this.loadPresence(listeners, open);
  }

  private async loadPresence(listeners: Listeners, open: Open): Promise<void> {
    try {
      const { clients } = await open.subscription.presence();
      open.clients = new Map(Object.values(clients).map(({ client, user }) => [client, user]));
      this.showPresence(listeners, open);
    } catch {
      // above the gateway's limit, or interrupted; corrected by the next join, leave or subscribe
    }
  }

  private showPresence(listeners: Listeners, open: Open): void {
    const users = [...new Set(open.clients.values())].filter((user) => user !== "");
    listeners.tell((handlers) => handlers.onPresence?.(users));
  }

  remove(channel: string): void {
    const open = this.open.get(channel);
    if (!open) return;
    this.open.delete(channel);
    open.subscription.removeAllListeners();
    open.subscription.unsubscribe();
    this.client.removeSubscription(open.subscription);
  }

  resubscribe(channel: string): void {
    const open = this.open.get(channel);
    if (open?.subscription.state === "unsubscribed") this.batch(() => open.subscription.subscribe());
  }

  // ---- requests

  async publish(channel: string, data: { type: string }): Promise<void> {
    const open = this.open.get(channel);
    if (!open) throw new BackendError("invalid", `${channel} is not subscribed.`);
    await this.ask(() => open.subscription.publish(data));
  }

  async presence(channel: string): Promise<string[]> {
    const open = this.open.get(channel);
    if (!open) throw new BackendError("invalid", `${channel} is not subscribed.`);
    const { clients } = await this.ask(() => open.subscription.presence());
    return [...new Set(Object.values(clients).map(({ user }) => user))].filter((user) => user !== "");
  }

  async rpc<T>(method: string, data: object): Promise<T> {
    const reply = await this.ask(() => this.client.rpc(method, data));
    return reply.data as T;
  }

  private async ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw fromGateway(error as { code?: number; message?: string });
    }
  }
}

/** A user's state travels as data without a sender. */
function state(data: unknown) {
  return { type: "state", userId: "", data: data as UserState & Record<string, unknown> };
}

function ended(problem: BackendError): UnauthorizedError {
  return new UnauthorizedError(problem.message, {
    code: problem.status === 403 ? "banned" : "unauthorized",
    status: problem.status,
    cause: problem,
  });
}

function fromGateway({ code = 0, message = "no answer" }: { code?: number; message?: string }): BackendError {
  if (code === 400) return new BackendError("muted", "This account is muted.", { status: code });
  if (code === 103) return new BackendError("forbidden", `The gateway refused: ${message}.`, { status: code });
  if (code === 111) return new TemporaryError("rate_limited", `The gateway refused: ${message}.`, { status: code });
  if (code > 100) return new BackendError("invalid", `The gateway refused: ${message}.`, { status: code });
  return new TemporaryError("network", `The gateway did not answer: ${message}.`, { status: code });
}
