// Blocked users: their messages are hidden until the user asks to see them.

import { useMemo } from "react";
import { create } from "zustand";
import { useSession } from "./session";

export const isBlocked = (id: string): boolean => useSession.getState().user?.blocked_users?.includes(id) ?? false;

const NOBODY: readonly string[] = [];

export function useBlocked(): ReadonlySet<string> {
  const ids = useSession((state) => state.user?.blocked_users) ?? NOBODY;
  return useMemo(() => new Set(ids), [ids]);
}

/** Rooms in which the user shows the hidden messages, until the page is left. */
const useShown = create<{ rooms: readonly string[] }>(() => ({ rooms: [] }));

export const useShowsBlocked = (roomId: string): boolean => useShown((state) => state.rooms.includes(roomId));
export const showBlocked = (roomId: string): void => useShown.setState(({ rooms }) => ({ rooms: [...rooms, roomId] }));
