// Who is logged in on this page. `login.ts` changes it.

import type { User } from "konvert-backend-adapter/interface";
import { create } from "zustand";

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
