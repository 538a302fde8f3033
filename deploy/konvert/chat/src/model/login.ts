// Log in, sign up, log out, and the continuation of a stored login.

import type { TFunction } from "i18next";
import { BackendError } from "konvert-backend-adapter/errors";
import type { User } from "konvert-backend-adapter/interface";
import { runtime } from "@/app/runtime";
import type { Mode, Problems } from "@/login/problems";
import { backend } from "./backend";
import { forgetFiles } from "./fileStore";
import { problemText } from "./problems";
import { retried } from "./retried";
import { openSending } from "./sending";
import { meId, useSession } from "./session";
import { openRoomList, startChat, stopChat } from "./start";
import { moment } from "./times";

export async function logIn(email: string, password: string): Promise<void> {
  enter((await backend().signin(email, password)).user);
}

/** The username comes from the name: without blanks and without the characters that a username may not have. */
export async function signUp(email: string, password: string, name: string): Promise<void> {
  const username = name.replace(/[\s@/:,]+/g, "_");
  const { user } = await backend().signup(email, password, username);
  if (username !== name)
    await backend()
      .updateUserProfile({ display_name: name })
      .catch(() => undefined);
  enter(user);
}

export async function logOut(): Promise<void> {
  const user = meId();
  leave(false);
  // Otherwise a reload would log the demo user in again.
  history.replaceState(null, "", location.pathname);
  await Promise.all([backend().signout(), forgetFiles(user)]);
}

function leave(ended: boolean): void {
  stopChat();
  if (useSession.getState().state !== "out") useSession.setState({ state: "out", user: null, ended });
}

function enter(user: User): void {
  useSession.setState({ user }); // the parts of the model ask for the user
  startChat(user);
  useSession.setState({ state: "in", ended: false });
  void openSending(user.id);
}

/** Continues a stored login, or logs a demo user in; without either, shows the login. Called once. */
export async function startSession(): Promise<void> {
  backend().onAuthChange((user) => {
    const { state, user: shown } = useSession.getState();
    if (state === "in" && user?.id !== shown?.id) leave(true); // the login ended, or another tab logged another user in
    // The token is here: the rooms load while the login still asks for the rest of the user.
    if (user) openRoomList(user.id);
  });
  const { demoUser } = runtime();
  const stored = backend().currentUserId();
  try {
    if (demoUser && stored !== demoUser.id) return await logIn(demoUser.email, demoUser.password);
    if (stored) {
      openRoomList(stored);
      return enter((await retried(() => backend().getMe())).user);
    }
  } catch (error) {
    if (!(error instanceof BackendError)) console.error(error);
    stopChat();
  }
  useSession.setState({ state: "out", user: null, ended: false });
}

/** The texts of a refused login or sign-up, each at its field. */
export function refusal(error: unknown, mode: Mode, t: TFunction): Problems {
  if (mode === "signup" && error instanceof BackendError) {
    const { username, email, password } = error.fields;
    const taken = ({ code }: { code: string }) => code === "validation_not_unique";
    const problems: Problems = {};
    if (username) problems.username = t(taken(username) ? "login.nameTaken" : "login.nameWrong");
    if (email) problems.email = t(taken(email) ? "login.emailTaken" : "login.emailWrong");
    if (password) problems.password = t("login.short");
    if (Object.keys(problems).length) return problems;
  }
  return { form: generalProblem(error, mode, t) };
}

function generalProblem(error: unknown, mode: Mode, t: TFunction): string {
  if (!(error instanceof BackendError)) return problemText(error, t);
  if (error.code === "banned")
    return error.until ? t("login.bannedUntil", { date: moment(error.until) }) : t("login.banned");
  if (error.code === "network") return t("login.noServer");
  if (mode === "login" && ["invalid", "unauthorized", "not_found"].includes(error.code)) return t("login.wrong");
  // The operator has left creating users to superusers.
  if (mode === "signup" && error.code === "forbidden") return t("login.closed");
  if (mode === "signup" && error.code === "conflict") return t("login.taken");
  return problemText(error, t);
}
