// Calls of the chat's edge function and of Supabase's auth service, with the login and typed errors.

import { BackendError, AbortedError, UnauthorizedError } from "../errors.js";
import type { BackendConfig, CallOptions } from "../interface.js";
import type { KeyValueStorage } from "../modules/context.js";
import { failureOf, problemOf } from "./problems.js";

/** Name of the edge function, unless the configuration has a name. */
const FUNCTION = "make-server-b0f1e6d5";
/** Milliseconds until a call without an answer counts as failed. */
const TIMEOUT_MS = 30_000;
/** Tokens are renewed this long before their end. */
const RENEW_WITHIN_MS = 60_000;
/** Pauses before a reading call is repeated after a temporary error, in milliseconds. */
const PAUSES_MS = [500, 1500];
/** Keys of the old chat in localStorage: its logins go on. */
const ACCESS = "access_token";
const REFRESH = "refresh_token";

interface Tokens {
  access_token: string;
  refresh_token?: string;
}

type Method = "GET" | "POST" | "PUT" | "DELETE";

export class Client {
  private readonly base: string;
  private readonly functionUrl: string;
  private readonly anonKey: string;
  private readonly listeners = new Set<(user: { id: string } | null) => void>();
  private readonly ends: (() => void)[] = [];
  private renewal: Promise<void> | null = null;
  private told: string | null;

  constructor(
    config: BackendConfig,
    private readonly storage: KeyValueStorage,
    functionName = FUNCTION,
  ) {
    this.base = config.url.replace(/\/+$/, "");
    this.functionUrl = `${this.base}/functions/v1/${functionName}`;
    this.anonKey = config.apiKey ?? "";
    this.told = this.userId;
    const page = globalThis as unknown as Partial<EventTarget>;
    const stored = (event: Event) => (event as StorageEvent).key === ACCESS && this.tell();
    page.addEventListener?.("storage", stored);
    this.ends.push(() => page.removeEventListener?.("storage", stored));
  }

  // ---- login

  /** Id of the logged-in user, from the stored token. */
  get userId(): string | null {
    const subject = payloadOf(this.storage.getItem(ACCESS)).sub;
    return typeof subject === "string" && subject ? subject : null;
  }

  me(): string {
    const id = this.userId;
    if (!id) throw new UnauthorizedError("Nobody is logged in.");
    return id;
  }

  get token(): string {
    return this.storage.getItem(ACCESS) ?? "";
  }

  get hasRefreshToken(): boolean {
    return Boolean(this.storage.getItem(REFRESH));
  }

  keep({ access_token, refresh_token }: Tokens): void {
    if (payloadOf(this.storage.getItem(ACCESS)).sub !== payloadOf(access_token).sub) this.storage.removeItem(REFRESH);
    if (refresh_token) this.storage.setItem(REFRESH, refresh_token);
    this.storage.setItem(ACCESS, access_token);
    this.tell();
  }

  /** The login on this device ends. */
  forget(): void {
    this.storage.removeItem(ACCESS);
    this.storage.removeItem(REFRESH);
    this.tell();
  }

  onAuthChange(callback: (user: { id: string } | null) => void): () => void {
    this.listeners.add(callback);
    return () => void this.listeners.delete(callback);
  }

  private tell(): void {
    const user = this.userId;
    if (user === this.told) return;
    this.told = user;
    for (const listener of [...this.listeners]) listener(user ? { id: user } : null);
  }

  /** Renews the token; calls at the same time share one request. Ends the login if the backend refuses. */
  renew(refreshToken?: string): Promise<void> {
    this.renewal ??= this.exchange(refreshToken).finally(() => (this.renewal = null));
    return this.renewal;
  }

  private async exchange(given?: string): Promise<void> {
    const refresh_token = given || this.storage.getItem(REFRESH);
    if (!refresh_token) throw this.over(new UnauthorizedError("The login has expired."));
    try {
      this.keep(await this.open<Tokens>("POST", "/auth/refresh", { refresh_token }));
    } catch (error) {
      if (!(error instanceof BackendError) || error.code !== "unauthorized") throw error;
      const stored = this.storage.getItem(REFRESH);
      // A second tab has used the token and stored the next.
      if (!given && stored && stored !== refresh_token) return;
      throw this.over(error);
    }
  }

  private over(error: BackendError): BackendError {
    this.forget();
    return error;
  }

  // ---- calls

  get<T>(path: string, options?: CallOptions): Promise<T> {
    return this.call<T>("GET", path, undefined, options);
  }
  post<T>(path: string, body: object = {}, options?: CallOptions): Promise<T> {
    return this.call<T>("POST", path, body, options);
  }
  put<T>(path: string, body: object, options?: CallOptions): Promise<T> {
    return this.call<T>("PUT", path, body, options);
  }
  delete<T>(path: string, options?: CallOptions): Promise<T> {
    return this.call<T>("DELETE", path, undefined, options);
  }

  /** A call of a logged-in user. Reading calls are repeated after temporary errors; writing calls are not. */
  async call<T>(method: Method, path: string, body?: object, options?: CallOptions): Promise<T> {
    this.me();
    const { exp } = payloadOf(this.token);
    if (typeof exp === "number" && exp * 1000 < Date.now() + RENEW_WITHIN_MS && this.hasRefreshToken)
      await this.renew();
    for (let attempt = 0; ; attempt++) {
      const token = this.token;
      try {
        return await this.open<T>(method, path, body, options, token);
      } catch (error) {
        if (!(error instanceof BackendError)) throw error;
        if (error.code === "unauthorized") {
          if (attempt > 0 || token !== this.token) throw token === this.token ? this.over(error) : error;
          await this.renew(); // refused before anything was done: also a write may be repeated
          continue;
        }
        const pause = method === "GET" && error.temporary ? PAUSES_MS[attempt] : undefined;
        if (pause === undefined) throw error;
        await sleep(pause, options?.signal);
      }
    }
  }

  /**
   * A call with a given token, else with the project's public key. The header `apikey` would not pass the edge
   * function's CORS rules.
   */
  open<T>(method: Method, path: string, body?: object, options?: CallOptions, token = this.anonKey): Promise<T> {
    return this.request<T>(
      `${this.functionUrl}${path}`,
      path,
      method,
      body,
      { Authorization: `Bearer ${token}` },
      options,
    );
  }

  /** A call of Supabase's auth service with the caller's token. */
  auth<T>(method: Method, path: string, body?: object): Promise<T> {
    const headers = { apikey: this.anonKey, Authorization: `Bearer ${this.token}` };
    return this.request<T>(`${this.base}/auth/v1${path}`, `/auth/v1${path}`, method, body, headers);
  }

  private async request<T>(
    url: string,
    path: string,
    method: Method,
    body: object | undefined,
    headers: Record<string, string>,
    options?: CallOptions,
  ): Promise<T> {
    if (options?.signal?.aborted) throw new AbortedError();
    const controller = new AbortController();
    const abort = () => controller.abort();
    options?.signal?.addEventListener("abort", abort, { once: true });
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, TIMEOUT_MS);
    try {
      const isForm = typeof FormData !== "undefined" && body instanceof FormData;
      const response = await fetch(url, {
        method,
        signal: controller.signal,
        headers: isForm || !body ? headers : { ...headers, "Content-Type": "application/json" },
        ...(body ? { body: isForm ? (body as FormData) : JSON.stringify(body) } : {}),
      });
      const answer = parse(await response.text());
      if (!response.ok) throw problemOf({ status: response.status, body: answer, path });
      return answer as T;
    } catch (error) {
      throw failureOf(error, late);
    } finally {
      clearTimeout(timer);
      options?.signal?.removeEventListener("abort", abort);
    }
  }

  close(): void {
    for (const end of this.ends.splice(0)) end();
    this.listeners.clear();
  }
}

/** A path's segment: ids contain colons. */
export function segment(value: string): string {
  return encodeURIComponent(value);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Claims of a JSON Web Token, without a check of the signature; empty for invalid tokens. */
function payloadOf(token: string | null): { sub?: unknown; exp?: unknown } {
  try {
    const part = (token ?? "").split(".")[1] ?? "";
    return JSON.parse(atob(part.replaceAll("-", "+").replaceAll("_", "/"))) as object;
  } catch {
    return {};
  }
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(new AbortedError());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
