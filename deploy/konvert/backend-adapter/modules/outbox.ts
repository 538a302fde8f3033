// Outbox of messages not yet stored by the server: kept on the device, sent in order, stored once. The client chooses
// the id, so a repeated attempt after a lost answer finds the stored record.

import { BackendError, InvalidError } from "../errors.js";
import type { MessageType } from "../interface.js";
import type { KeyValueStorage } from "./context.js";

export interface Draft {
  id: string;
  room: string;
  content: string;
  type: MessageType;
  replyTo?: string;
  mentions?: string[];
  created: string;
  failed?: { code: string; message: string; action: string };
}

export type Outcome<Stored> = { stored: Stored } | { pending: Draft };

export interface OutboxOptions<Stored> {
  /** Id of the logged-in user. Messages of other users wait for their login. */
  user(): string | null;
  /** Stores a message on the server, or returns the record of an earlier attempt. */
  store(draft: Draft): Promise<Stored>;
  /** A message is new, failed, or waits again. */
  onChange(draft: Draft): void;
  onStored(stored: Stored): void;
  onDiscard(draft: Draft): void;
  /** Another tab has sent or discarded the message. */
  onElsewhere(draft: Draft): void;
  storage: KeyValueStorage | null;
}

/** Maximum number of waiting messages. */
const MAX_DRAFTS = 500;
const FIRST_PAUSE_MS = 500;
const LAST_PAUSE_MS = 20_000;
const PREFIX = "konvert.outbox.";

export class Outbox<Stored = unknown> {
  private drafts = new Map<string, Draft>();
  private readonly waiting = new Map<
    string,
    { resolve: (outcome: Outcome<Stored>) => void; reject: (error: BackendError) => void }
  >();
  private owner: string | null = null;
  private running = false;
  private pause = FIRST_PAUSE_MS;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private closed = false;
  private readonly ends: (() => void)[] = [];

  constructor(private readonly options: OutboxOptions<Stored>) {
    const page = globalThis as unknown as Partial<EventTarget>;
    const listen = (name: string, work: (event: Event) => void) => {
      page.addEventListener?.(name, work);
      this.ends.push(() => page.removeEventListener?.(name, work));
    };
    listen("online", () => this.flush());
    listen("storage", (event) => (event as StorageEvent).key === this.key() && this.reload());
  }

  /** The messages of a room, or of all rooms, oldest first. */
  list(room?: string): Draft[] {
    this.load();
    return [...this.drafts.values()].filter((draft) => room === undefined || draft.room === room);
  }

  /** Resolves with the stored message, or with the pending message if the network is away. */
  send(draft: Draft): Promise<Outcome<Stored>> {
    this.load();
    if (this.drafts.size >= MAX_DRAFTS) {
      const action = "Wait until the connection is back, or discard messages.";
      return Promise.reject(new InvalidError(`${MAX_DRAFTS} messages wait already.`, { action }));
    }
    this.put(draft);
    const outcome = new Promise<Outcome<Stored>>((resolve, reject) => this.waiting.set(draft.id, { resolve, reject }));
    // Earlier messages wait for the network: no attempt out of turn.
    if (this.timer) this.settle(draft.id, ({ resolve }) => resolve({ pending: draft }));
    else void this.run();
    return outcome;
  }

  retry(id: string): Promise<Outcome<Stored>> {
    this.load();
    const draft = this.drafts.get(id);
    if (!draft) return Promise.reject(new BackendError("not_found", "No such pending message."));
    const { failed: _, ...again } = draft;
    this.remove(id);
    clearTimeout(this.timer);
    this.timer = undefined;
    return this.send(again);
  }

  discard(id: string): void {
    this.load();
    const draft = this.drafts.get(id);
    if (!draft) return;
    this.remove(id);
    this.settle(id, ({ reject }) => reject(new BackendError("aborted", "The message was discarded.")));
    this.options.onDiscard(draft);
  }

  /** Forgets the messages of the logged-in user. */
  clear(): void {
    for (const { id } of this.list()) this.discard(id);
  }

  /** Tries at once: the network or the login is back. */
  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.pause = FIRST_PAUSE_MS;
    void this.run();
  }

  close(): void {
    this.closed = true;
    clearTimeout(this.timer);
    for (const end of this.ends.splice(0)) end();
    const error = new BackendError("aborted", "The adapter was closed.");
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  // ---- sending

  /** Sends waiting messages in order. Tabs of a browser take turns (Web Locks). */
  private async run(): Promise<void> {
    if (this.running || this.closed) return;
    this.running = true;
    let goesOn = true;
    try {
      await exclusively(this.key(), async () => {
        this.reload();
        for (let draft = this.next(); draft && goesOn && !this.closed; draft = this.next())
          goesOn = await this.attempt(draft);
      });
    } finally {
      this.running = false;
    }
    if (goesOn && this.next()) void this.run(); // came while the last attempt ended
  }

  private next(): Draft | undefined {
    if (this.options.user() !== this.owner || !this.owner) return undefined;
    return [...this.drafts.values()].find(({ failed }) => !failed);
  }

  /** Whether the next message may follow. */
  private async attempt(draft: Draft): Promise<boolean> {
    try {
      const stored = await this.options.store(draft);
      this.remove(draft.id);
      this.pause = FIRST_PAUSE_MS;
      this.options.onStored(stored);
      this.settle(draft.id, ({ resolve }) => resolve({ stored }));
      return true;
    } catch (problem) {
      const error =
        problem instanceof BackendError ? problem : new BackendError("server", String(problem), { cause: problem });
      if (error.temporary) return this.wait(error);
      if (error.code === "unauthorized" || error.code === "banned") return this.stop(error);
      if (!this.drafts.has(draft.id)) return true; // discarded meanwhile
      const { code, message, action } = error;
      this.put({ ...draft, failed: { code, message, action } });
      this.settle(draft.id, ({ reject }) => reject(error));
      return true;
    }
  }

  private wait(error: BackendError): boolean {
    if (this.closed) return false;
    const pause = error.retryAfter ? error.retryAfter * 1000 : this.pause;
    this.pause = Math.min(this.pause * 2, LAST_PAUSE_MS);
    clearTimeout(this.timer);
    this.timer = setTimeout(
      () => {
        this.timer = undefined;
        void this.run();
      },
      pause * (0.8 + Math.random() * 0.4),
    );
    for (const draft of this.drafts.values()) this.settle(draft.id, ({ resolve }) => resolve({ pending: draft }));
    return false;
  }

  /** The login is over: the messages wait for the same user's next login. */
  private stop(error: BackendError): boolean {
    for (const id of [...this.waiting.keys()]) this.settle(id, ({ reject }) => reject(error));
    return false;
  }

  private settle(
    id: string,
    how: (waiter: { resolve: (outcome: Outcome<Stored>) => void; reject: (error: BackendError) => void }) => void,
  ): void {
    const waiter = this.waiting.get(id);
    this.waiting.delete(id);
    if (waiter) how(waiter);
  }

  // ---- keeping

  private key(): string {
    return PREFIX + (this.options.user() ?? "");
  }

  private put(draft: Draft): void {
    this.drafts.set(draft.id, draft);
    this.save((drafts) => drafts.set(draft.id, draft));
    this.options.onChange(draft);
  }

  private remove(id: string): void {
    this.drafts.delete(id);
    this.save((drafts) => drafts.delete(id));
  }

  /** Read-modify-write of the store, since other tabs write too. */
  private save(change: (drafts: Map<string, Draft>) => void): void {
    const { storage } = this.options;
    const drafts = this.stored();
    if (!storage || !this.owner || !drafts) return;
    change(drafts);
    try {
      if (drafts.size === 0) storage.removeItem(PREFIX + this.owner);
      else storage.setItem(PREFIX + this.owner, JSON.stringify([...drafts.values()]));
    } catch {
      // full or forbidden: the messages live as long as the page
    }
  }

  /** Another user has another outbox. */
  private load(): void {
    const user = this.options.user();
    if (user === this.owner) return;
    this.owner = user;
    this.drafts = this.stored() ?? new Map();
  }

  /** Applies changes by other tabs. */
  private reload(): void {
    this.load();
    const stored = this.stored();
    if (!stored) return;
    const before = this.drafts;
    this.drafts = stored;
    for (const draft of stored.values()) {
      if (JSON.stringify(before.get(draft.id)) !== JSON.stringify(draft)) this.options.onChange(draft);
    }
    for (const draft of before.values()) {
      if (stored.has(draft.id)) continue;
      if (this.waiting.has(draft.id))
        this.drafts.set(draft.id, draft); // sent again: the server stores it once
      else this.options.onElsewhere(draft);
    }
  }

  private stored(): Map<string, Draft> | null {
    if (!this.options.storage || !this.owner) return null;
    try {
      const drafts = JSON.parse(this.options.storage.getItem(PREFIX + this.owner) ?? "[]") as Draft[];
      return new Map(drafts.map((draft) => [draft.id, draft]));
    } catch {
      return null;
    }
  }
}

/** Runs `work` under a Web Lock; without Web Locks, at once. */
async function exclusively(name: string, work: () => Promise<void>): Promise<void> {
  const locks = (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;
  if (locks) await locks.request(name, work);
  else await work();
}
