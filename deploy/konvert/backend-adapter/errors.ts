// Typed errors of the adapter. Callers branch on the class or on `code`; `action` says what the user can do.

/** Codes of errors that every adapter uses; a backend may add codes of its own. */
export type ErrorCode =
  | "unauthorized" // no valid login: log in again
  | "banned" // the account is banned, until `until` if known
  | "muted" // the account may read but not write, until `until` if known
  | "forbidden" // the rules do not allow this to this user
  | "not_found" // no such record, or the user may not see it
  | "invalid" // a value is missing or wrong; `fields` names it
  | "conflict" // the record exists already, or was changed meanwhile
  | "too_large" // a file or text exceeds a limit
  | "rate_limited" // too many requests; try again after `retryAfter` seconds
  | "network" // the server cannot be reached; try again later
  | "server" // the server failed; try again later
  | "aborted" // the caller's AbortSignal ended the call
  | "unsupported"; // this backend cannot do this

export interface ErrorDetails {
  /** What the user can do, in one sentence. */
  action?: string;
  /** HTTP status of the answer; 0 if there was none. */
  status?: number;
  /** Problem of each field of the request. */
  fields?: Record<string, { code: string; message: string }>;
  /** End of a ban or of muting, as an ISO date. */
  until?: string;
  /** Seconds until the call may be repeated. */
  retryAfter?: number;
  cause?: unknown;
}

const ACTIONS: Record<ErrorCode, string> = {
  unauthorized: "Log in again.",
  banned: "Wait until the ban ends, or ask a moderator.",
  muted: "Wait until the muting ends, or ask a moderator.",
  forbidden: "Ask an owner or a moderator for permission.",
  not_found: "Reload the list; the record may have been deleted.",
  invalid: "Correct the named fields.",
  conflict: "Reload, then decide whether the change is still needed.",
  too_large: "Send less.",
  rate_limited: "Wait a moment, then try again.",
  network: "Check the connection; the call may be repeated.",
  server: "Try again later; if it persists, tell the operator.",
  aborted: "Nothing; the call was cancelled.",
  unsupported: "Use a backend that supports this.",
};

/** Base of all errors that the adapter throws. */
export class BackendError extends Error {
  override readonly name: string = "BackendError";
  readonly code: ErrorCode;
  readonly action: string;
  readonly status: number;
  readonly fields: Record<string, { code: string; message: string }>;
  readonly until: string | undefined;
  readonly retryAfter: number | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.action = details.action ?? ACTIONS[code];
    this.status = details.status ?? 0;
    this.fields = details.fields ?? {};
    this.until = details.until;
    this.retryAfter = details.retryAfter;
  }

  /** Whether the same call can succeed later without a change by the user. */
  get temporary(): boolean {
    return this.code === "network" || this.code === "server" || this.code === "rate_limited";
  }
}

/** The login is over: no retry can succeed before a new login. `code` is "unauthorized" or "banned". */
export class UnauthorizedError extends BackendError {
  override readonly name = "UnauthorizedError";
  constructor(
    message = "The login is no longer valid.",
    details: ErrorDetails & { code?: "unauthorized" | "banned" } = {},
  ) {
    super(details.code ?? "unauthorized", message, details);
  }
}

/** The rules do not allow this. `code` is "forbidden" or "muted". */
export class ForbiddenError extends BackendError {
  override readonly name = "ForbiddenError";
  constructor(message: string, details: ErrorDetails & { code?: "forbidden" | "muted" } = {}) {
    super(details.code ?? "forbidden", message, details);
  }
}

export class NotFoundError extends BackendError {
  override readonly name = "NotFoundError";
  constructor(message: string, details: ErrorDetails = {}) {
    super("not_found", message, details);
  }
}

/** A value is missing, wrong or too large. `code` is "invalid" or "too_large". */
export class InvalidError extends BackendError {
  override readonly name = "InvalidError";
  constructor(message: string, details: ErrorDetails & { code?: "invalid" | "too_large" } = {}) {
    super(details.code ?? "invalid", message, details);
  }
}

export class ConflictError extends BackendError {
  override readonly name = "ConflictError";
  constructor(message: string, details: ErrorDetails = {}) {
    super("conflict", message, details);
  }
}

/** The server did not answer, failed or refused for a moment. `code` is "network", "server" or "rate_limited". */
export class TemporaryError extends BackendError {
  override readonly name = "TemporaryError";
  constructor(code: "network" | "server" | "rate_limited", message: string, details: ErrorDetails = {}) {
    super(code, message, details);
  }
}

export class AbortedError extends BackendError {
  override readonly name = "AbortedError";
  constructor(details: ErrorDetails = {}) {
    super("aborted", "The call was cancelled.", details);
  }
}

/** This backend has no such function. `method` names the method of the adapter. */
export class UnsupportedError extends BackendError {
  override readonly name = "UnsupportedError";
  readonly method: string;
  constructor(method: string, why: string, details: ErrorDetails = {}) {
    super("unsupported", `${method}: ${why}`, details);
    this.method = method;
  }
}

// ---- from PocketBase's errors

interface Answer {
  status?: number;
  isAbort?: boolean;
  response?: {
    code?: unknown;
    message?: unknown;
    until?: unknown;
    data?: Record<string, { code?: unknown; message?: unknown } | undefined>;
  };
}

/** The typed error for anything that PocketBase's client throws. */
export function toBackendError(error: unknown): BackendError {
  if (error instanceof BackendError) return error;
  const { status = 0, isAbort = false, response = {} } = (error ?? {}) as Answer;
  if (isAbort || (error instanceof Error && error.name === "AbortError")) return new AbortedError({ cause: error });
  if (!(error instanceof Error) || !("status" in error)) {
    return new BackendError("server", error instanceof Error ? error.message : String(error), { cause: error });
  }
  const fields: Record<string, { code: string; message: string }> = {};
  for (const [name, problem] of Object.entries(response.data ?? {})) {
    fields[name] = { code: String(problem?.code ?? ""), message: String(problem?.message ?? "") };
  }
  const details = { status, fields, cause: error };
  // The chat's routes name a code; PocketBase's answers have no `code` or a number.
  const code = typeof response.code === "string" ? response.code : "";
  const until = typeof response.until === "string" ? response.until.replace(" ", "T") : undefined;
  const message = sentence(response.message, fields) || `The server answered ${status}.`;
  if (code === "unsupported") return new UnsupportedError("server", message, details);
  if (status === 0) return new TemporaryError("network", "The server cannot be reached.", details);
  if (code === "banned") return new UnauthorizedError(message, { ...details, code, ...(until ? { until } : {}) });
  if (code === "muted") return new ForbiddenError(message, { ...details, code, ...(until ? { until } : {}) });
  if (status === 401) return new UnauthorizedError(message, details);
  if (status === 403) return new ForbiddenError(message, details);
  if (status === 404) return new NotFoundError(message, details);
  if (status === 409 || Object.values(fields).some((field) => field.code === "validation_not_unique")) {
    return new ConflictError(message, details);
  }
  if (status === 413) return new InvalidError(message, { ...details, code: "too_large" });
  if (status === 429) return new TemporaryError("rate_limited", message, { ...details, retryAfter: 10 });
  if (status >= 500) return new TemporaryError("server", message, details);
  return new InvalidError(message, details);
}

function sentence(message: unknown, fields: Record<string, { message: string }>): string {
  const details = Object.entries(fields).map(([name, { message: why }]) => `${name}: ${why}`);
  return [typeof message === "string" ? message : "", ...details].filter(Boolean).join(" ");
}
