// Problems of the login form, each at the field that the user can correct. Those that the server answers:
// `refusal` in `model/login.ts`.

import type { TFunction } from "i18next";

export type Mode = "login" | "signup";
export interface Values {
  username: string;
  email: string;
  password: string;
}
/** Texts by field; `form` is a problem of no single field. */
export type Problems = Partial<Record<keyof Values | "form", string>>;

const SHORTEST_PASSWORD = 8;

/** Problems that need no server. The texts are ours: the browser's own would be in the browser's language. */
export function problemsOf({ username, email, password }: Values, mode: Mode, t: TFunction): Problems {
  const problems: Problems = {};
  if (mode === "signup" && !username.trim()) problems.username = t("login.nameNeeded");
  if (!email.trim()) problems.email = t("login.emailNeeded");
  else if (!/^[^\s@]+@[^\s@]+$/.test(email.trim())) problems.email = t("login.emailWrong");
  if (!password) problems.password = t("login.passwordNeeded");
  else if (mode === "signup" && password.length < SHORTEST_PASSWORD) problems.password = t("login.short");
  return problems;
}
