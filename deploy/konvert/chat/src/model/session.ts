// Who is logged in on this page.

import type { TFunction } from "i18next";
import { BackendError } from "konvert-backend-adapter/errors";
import type { User } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { runtime } from "@/app/runtime";
import { backend } from "./backend";
import { forgetFiles } from "./fileStore";
import { moment } from "./times";
import { problemText } from "./problems";
import { openSending } from "./sending";
import { startChat, stopChat } from "./start";

interface Session {
  state: "starting" | "out" | "in";
  user: User | null;
  /** The login ended by itself: the token expired, or a moderator or another tab ended it. */
  ended: boolean;
}

export const useSession = create<Session>(() => ({ state: "starting", user: null, ended: false }));

/** The id of the logged-in user. */
export const meId = (): string => useSession.getState().user?.id ?? "";
export const useMe = (): User => {
  const user = useSession((state) => state.user);
  if (!user) throw new Error("useMe() outside a login");
  return user;
};
export const setMe = (user: User): void => useSession.setState((state) => ({ user: { ...state.user, ...user } }));

export async function logIn(email: string, password: string): Promise<void> {
  await enter((await backend().signin(email, password)).user);
}

/** The username comes from the name: without blanks and without the characters that a username may not have. */
export async function signUp(email: string, password: string, name: string): Promise<void> {
  const username = name.replace(/[\s@/:,]+/g, "_");
  const { user } = await backend().signup(email, password, username);
  if (username !== name)
    await backend()
      .updateUserProfile({ display_name: name })
      .catch(() => undefined);
  await enter(user);
}

export async function logOut(): Promise<void> {
  const user = meId();
  leave(false);
  // Otherwise a reload would log the demo user in again.
  history.replaceState(null, "", location.pathname);
  await Promise.all([backend().signout(), forgetFiles(user)]);
}

function leave(ended: boolean): void {
  if (useSession.getState().state === "out") return;
  stopChat();
  useSession.setState({ state: "out", user: null, ended });
}

async function enter(user: User): Promise<void> {
  useSession.setState({ user }); // the parts of the model ask for the user
  await startChat(user);
  useSession.setState({ state: "in", ended: false });
  void openSending(user.id);
}

/** Continues a stored login, or logs a demo user in; without either, shows the login. */
export async function startSession(): Promise<void> {
  backend().onAuthChange((user) => {
    const { state } = useSession.getState();
    if (user === null && state === "in") leave(true);
  });
  const { demoUser } = runtime();
  try {
    if (demoUser && backend().currentUserId() !== demoUser.id) return await logIn(demoUser.email, demoUser.password);
    if (backend().currentUserId()) return await enter((await retried(() => backend().getMe())).user);
  } catch (error) {
    if (!(error instanceof BackendError)) console.error(error);
    useSession.setState({ state: "out", user: null, ended: false });
    return;
  }
  useSession.setState({ state: "out" });
}

/** Repeats a call while the network or the server fails for a moment. */
async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8_000)) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof BackendError && error.temporary)) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

export function loginProblem(error: unknown, t: TFunction, mode: "login" | "signup"): string {
  if (!(error instanceof BackendError)) return problemText(error, t);
  if (error.code === "banned")
    return error.until ? t("login.bannedUntil", { date: moment(error.until) }) : t("login.banned");
  if (error.code === "network") return t("login.noServer");
  if (mode === "login" && ["invalid", "unauthorized", "not_found"].includes(error.code)) return t("login.wrong");
  if (mode === "signup" && error.code === "conflict") return t("login.taken");
  return problemText(error, t);
}
