import { create } from "zustand";
import { meId } from "@/model/session";
import { go } from "@/app/route";

/** The user of the open profile. */
export const useProfile = create<{ user: string | null }>(() => ({ user: null }));
export const openProfile = (user: string): void =>
  user === meId() ? go({ view: "settings" }) : useProfile.setState({ user });
export const closeProfile = (): void => useProfile.setState({ user: null });
