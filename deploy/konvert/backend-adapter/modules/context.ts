// Context of all modules: PocketBase's client, calls with typed errors, the logged-in user.

import PocketBase, { ClientResponseError, getTokenPayload, type RecordModel, type RecordService } from "pocketbase";
import {
  AbortedError,
  BackendError,
  ForbiddenError,
  NotFoundError,
  TemporaryError,
  UnauthorizedError,
  toBackendError,
} from "../errors.js";
import type { BackendConfig, CallOptions } from "../interface.js";
import type { Realtime } from "../realtime.js";

/** Milliseconds until a call without an answer counts as failed. */
const TIMEOUT_MS = 30_000;
/** Remaining share of a token's lifetime below which the token is renewed. */
const RENEW_BELOW = 0.5;

/** Where pending messages are kept; localStorage fits. */
export interface KeyValueStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Passed to PocketBase's client with each call. */
export interface Request {
  signal: AbortSignal;
  requestKey: null;
  [key: string]: unknown;
}

export class Context {
  private renewal: Promise<void> | null = null;
  private lifetime = { token: "", seconds: 0 };

  constructor(
    readonly pocketbase: PocketBase,
    readonly config: BackendConfig,
    readonly realtime: Realtime | null,
    readonly language: "en" | "ru",
  ) {
    pocketbase.autoCancellation(false);
  }

  collection(name: string): RecordService<RecordModel> {
    return this.pocketbase.collection(name);
  }

  /** Id of the logged-in user. */
  get userId(): string | null {
    const { record, token } = this.pocketbase.authStore;
    return token && record ? record.id : null;
  }

  /** Id of the logged-in user; throws UnauthorizedError without a login. */
  me(): string {
    const id = this.userId;
    if (!id) throw new UnauthorizedError("Nobody is logged in.");
    return id;
  }

  /** Runs a call of a logged-in user, with typed errors, the caller's signal and a timeout. */
  async call<T>(options: CallOptions | undefined, work: (request: Request) => Promise<T>): Promise<T> {
    this.me();
    if (!this.pocketbase.authStore.isValid) {
      this.forget();
      throw new UnauthorizedError("The login has expired.");
    }
    this.renewSoon();
    return this.open(options, work);
  }

  /** Runs a call that needs no login. */
  async open<T>(options: CallOptions | undefined, work: (request: Request) => Promise<T>): Promise<T> {
    const signal = options?.signal;
    if (signal?.aborted) throw new AbortedError();
    const controller = new AbortController();
    const abort = () => controller.abort();
    signal?.addEventListener("abort", abort, { once: true });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, TIMEOUT_MS);
    try {
      return await work({ signal: controller.signal, requestKey: null });
    } catch (error) {
      if (late) throw new TemporaryError("network", "The server did not answer in time.", { cause: error });
      throw toBackendError(error);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** One of the chat's own routes. */
  async route<T>(method: string, path: string, body?: object, options?: CallOptions): Promise<T> {
    const url = `/api/konvert/${path}`;
    return this.call(options, (request) =>
      this.pocketbase.send<T>(url, { ...request, method, ...(body ? { body } : {}) }),
    );
  }

  /**
   * Runs a write under PocketBase's rules. A refusal by a rule has no reason ("failed to create", "not found"), so a second
   * request finds the reason: an ended login, a ban, muting, no permission, or a missing record.
   */
  async write<T>(
    options: CallOptions | undefined,
    target: { collection: string; id?: string },
    work: (request: Request) => Promise<T>,
  ): Promise<T> {
    try {
      return await this.call(options, work);
    } catch (error) {
      if (!(error instanceof BackendError) || !isRefusal(error)) throw error;
      await this.route("GET", "me", undefined, options);
      const details = { status: error.status, cause: error };
      if (!target.id) throw new ForbiddenError("The rules do not allow this.", details);
      const { collection, id } = target;
      await this.call(options, (request) => this.collection(collection).getOne(id, request)).catch(
        (problem: BackendError) => {
          throw problem.code === "not_found" ? new NotFoundError(`No such record in ${collection}.`, details) : problem;
        },
      );
      throw new ForbiddenError("The rules do not allow this.", details);
    }
  }

  /** Ends the login on this device. */
  forget(): void {
    this.pocketbase.authStore.clear();
  }

  private renewSoon(): void {
    const { token } = this.pocketbase.authStore;
    const { exp } = getTokenPayload(token) as { exp?: number };
    if (!exp) return;
    const left = exp - Date.now() / 1000;
    // PocketBase's tokens have no time of issue: the lifetime counts from the first call with the token.
    if (this.lifetime.token !== token) this.lifetime = { token, seconds: left };
    if (left < this.lifetime.seconds * RENEW_BELOW) void this.renew().catch(() => {}); // the next call tries again
  }

  /** Renews the token; concurrent calls share a request. Ends the login if PocketBase refuses. */
  renew(options?: CallOptions): Promise<void> {
    this.renewal ??= this.open(options, async (request) => {
      await this.pocketbase.collection("users").authRefresh(request);
    })
      .catch((error: BackendError) => {
        if (error.temporary || error.code === "aborted") throw error;
        this.forget();
        throw this.loginOver(error);
      })
      .finally(() => (this.renewal = null));
    return this.renewal;
  }

  /** PocketBase refuses banned accounts with 403, all others with 401 or 404. */
  loginOver(error: BackendError): BackendError {
    if (error.status !== 403)
      return new UnauthorizedError("The login is over.", { status: error.status, cause: error });
    return new UnauthorizedError("This account is banned.", { code: "banned", status: 403, cause: error });
  }
}

function isRefusal(error: BackendError): boolean {
  if (error.status === 404 || error.code === "forbidden") return true;
  const isOurs = error.cause instanceof ClientResponseError && typeof error.cause.response.code === "string";
  return error.status === 400 && !isOurs && Object.keys(error.fields).length === 0;
}

/** String literal for PocketBase's filters, with quotes escaped and without trailing backslashes (not expressible). */
export function quoted(text: string): string {
  return `'${text.replace(/\\+$/, "").replaceAll("'", "\\'")}'`;
}

/** PocketBase's date as ISO 8601; empty becomes undefined. */
export function date(value: unknown): string | undefined {
  return typeof value === "string" && value ? value.replace(" ", "T") : undefined;
}

/** Removes undefined fields, since absent optional properties are not undefined (exact types). */
export function present<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

const ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789";

/** A record id in PocketBase's form. */
export function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(15))].map((byte) => ALPHABET[byte % ALPHABET.length]).join("");
}

/** Variants of a search text in letter case, since SQLite ignores the case of Latin letters only. */
export function caseVariants(text: string): string[] {
  const lower = text.toLowerCase();
  return [...new Set([text, lower, lower.charAt(0).toUpperCase() + lower.slice(1), text.toUpperCase()])];
}
