// Typed errors for the answers of the old backend. Its edge function names no codes: the reason is a sentence in Russian.

import {
  AbortedError,
  BackendError,
  ConflictError,
  ForbiddenError,
  InvalidError,
  NotFoundError,
  TemporaryError,
  UnauthorizedError,
  UnsupportedError,
  type ErrorDetails,
} from "../errors.js";

type Make = (message: string, details: ErrorDetails) => BackendError;

const invalid: Make = (message, details) => new InvalidError(message, details);
const forbidden: Make = (message, details) => new ForbiddenError(message, details);
const conflict: Make = (message, details) => new ConflictError(message, details);
const notFound: Make = (message, details) => new NotFoundError(message, details);
const server: Make = (message, details) => new TemporaryError("server", message, details);
const tooLarge: Make = (message, details) => new InvalidError(message, { ...details, code: "too_large" });

/** Kinds of errors by the text of the answer; the first match counts. */
const KINDS: readonly [RegExp, Make][] = [
  [/ в муте/, (message, details) => new ForbiddenError(message, { ...details, code: "muted", ...mutedUntil(message) })],
  [/^Вы заблокированы|^Забаненные/, (message, details) => new BackendError("banned", message, details)],
  [/сам(ого|им) соб|самого себя|добавить себя/, invalid],
  [/слишком большой|exceeded the maximum/, tooLarge],
  [/^Ошибка .*(password|should|mime|invalid)/i, invalid],
  [/^Ошибка /, server],
  [/^Недостаточно прав/, forbidden],
  [/уже (занят|существует|отправлен|проголосовал|заблокирован|в друзьях|используется|обработан)|^Вы уже/, conflict],
  [/не найден|удал[её]н|не в друзьях|не в списке/, notFound],
  [/^Только |не являетесь|Нет доступа|не могут|защищены|^Невозможно|^Нельзя/, forbidden],
];

export interface Answer {
  status: number;
  /** The parsed JSON; `undefined` if the answer was none. */
  body: unknown;
  /** Path within the edge function, for the message. */
  path: string;
}

/** Error for an answer of the edge function, Supabase's API gateway or auth service. */
export function problemOf({ status, body, path }: Answer): BackendError {
  const details = { status };
  const message = reason(body);
  if (status === 404 && body === undefined) {
    const action =
      "Deploy the newest version of the chat's edge function, or check its name in VITE_SUPABASE_FUNCTION.";
    return new UnsupportedError(path, "this edge function has no such route.", { ...details, action });
  }
  if (status === 401) return new UnauthorizedError(message || undefined, details);
  if (status === 429)
    return new TemporaryError("rate_limited", message || "Too many requests.", { ...details, retryAfter: 10 });
  if (status === 413) return tooLarge(message || "The request is too large.", details);
  if (status >= 500) return server(message || `The server answered ${status}.`, details);
  for (const [pattern, make] of KINDS) if (pattern.test(message)) return make(message, details);
  if (status === 403) return forbidden(message || "The server refuses this.", details);
  if (status === 404) return notFound(message || "No such record.", details);
  return invalid(message || `The server answered ${status}.`, details);
}

/** Error for an exception of `fetch`. `late`: the timeout has ended the call. */
export function failureOf(error: unknown, late: boolean): BackendError {
  if (error instanceof BackendError) return error;
  if (late) return new TemporaryError("network", "The server did not answer in time.", { cause: error });
  if (error instanceof Error && error.name === "AbortError") return new AbortedError({ cause: error });
  return new TemporaryError("network", "The server cannot be reached.", { cause: error });
}

function reason(body: unknown): string {
  const { error, msg, message, error_description } = (body ?? {}) as Record<string, unknown>;
  for (const text of [error, msg, message, error_description]) if (typeof text === "string" && text) return text;
  return "";
}

/** "Осталось 12 мин.": minutes until the muting ends. */
function mutedUntil(message: string): { until?: string } {
  const minutes = /Осталось (\d+) мин/.exec(message)?.[1];
  return minutes ? { until: new Date(Date.now() + Number(minutes) * 60_000).toISOString() } : {};
}
