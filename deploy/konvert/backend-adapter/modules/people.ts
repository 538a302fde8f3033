// Users in the chat's form, with a cache of a minute for names and pictures beside messages.

import type { RecordModel } from "pocketbase";
import type { CallOptions, Role, User } from "../interface.js";
import type { RealtimeStatus } from "../realtime.js";
import { date, present, quoted, type Context } from "./context.js";

const FRESH_MS = 60_000;
/** Users in one request. */
const BATCH = 50;
/** Most users in the cache. */
const KEPT = 5000;
/** Bans beyond this year have no end. */
const FOREVER = "9000";

export class People {
  private readonly known = new Map<string, { user: User; until: number }>();
  private asked: Promise<void> | null = null;
  private wanted = new Set<string>();

  constructor(private readonly context: Context) {}

  toUser(record: RecordModel, status: RealtimeStatus = "offline"): User {
    const { files } = this.context.pocketbase;
    const avatar = text(record.avatar);
    const [banned, muted] = [date(record.banned_until), date(record.muted_until)];
    const now = new Date().toISOString();
    const end = (until: string) => (until < FOREVER ? until : undefined);
    const user: User = present({
      id: record.id,
      email: text(record.email),
      username: text(record.username) || record.id,
      display_name: text(record.name) || undefined,
      role: (text(record.role) || "user") as Role,
      avatar_url: avatar ? files.getURL(record, avatar) : undefined,
      status,
      status_text: text(record.status_text) || undefined,
      last_activity: date(record.last_activity),
      created_at: date(record.created) ?? "",
      banned: banned && banned > now ? true : undefined,
      ban_until: banned && banned > now ? end(banned) : undefined,
      muted: muted && muted > now ? true : undefined,
      mute_until: muted && muted > now ? end(muted) : undefined,
      public_key: text(record.public_key) || undefined,
    });
    this.remember(user);
    return user;
  }

  private remember(user: User): void {
    this.known.delete(user.id);
    this.known.set(user.id, { user, until: Date.now() + FRESH_MS });
    if (this.known.size > KEPT) for (const id of [...this.known.keys()].slice(0, KEPT / 10)) this.known.delete(id);
  }

  clear(): void {
    this.known.clear();
  }

  /** A cached user, perhaps outdated. */
  cached(id: string): User | undefined {
    return this.known.get(id)?.user;
  }

  /** Users by id, without deleted and hidden users. Calls within a microtask share a request. */
  async many(ids: Iterable<string>): Promise<Map<string, User>> {
    const unique = [...new Set(ids)].filter(Boolean);
    const now = Date.now();
    const missing = unique.filter((id) => (this.known.get(id)?.until ?? 0) < now);
    if (missing.length > 0) {
      for (const id of missing) this.wanted.add(id);
      this.asked ??= Promise.resolve().then(() => this.load());
      await this.asked;
    }
    return new Map(
      unique.flatMap((id) => {
        const user = this.cached(id);
        return user ? [[id, user] as const] : [];
      }),
    );
  }

  private async load(): Promise<void> {
    const ids = [...this.wanted];
    this.wanted = new Set();
    this.asked = null;
    for (let i = 0; i < ids.length; i += BATCH) {
      const filter = ids
        .slice(i, i + BATCH)
        .map((id) => `id=${quoted(id)}`)
        .join("||");
      const { items } = await this.context.call(undefined, (request) =>
        this.context.collection("users").getList(1, BATCH, { ...request, filter, skipTotal: true }),
      );
      for (const record of items) this.toUser(record);
    }
  }

  /** Adds the present status while the gateway is connected. */
  async withStatus(users: User[], options?: CallOptions): Promise<User[]> {
    const { realtime } = this.context;
    if (!realtime || users.length === 0 || options?.signal?.aborted) return users;
    const { state, transport } = realtime.state();
    if (state !== "connected" || transport !== "gateway") return users;
    try {
      const statuses = await realtime.statuses(users.map(({ id }) => id));
      return users.map((user) => ({ ...user, status: statuses[user.id]?.status ?? user.status }));
    } catch {
      return users; // a status is an addition: the users themselves are there
    }
  }
}

export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

export function list(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === "string") : [];
}
