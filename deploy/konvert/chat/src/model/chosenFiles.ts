// Files that were chosen for the next message of a room. They survive a change of the room and a reload.

import { useEffect } from "react";
import { create } from "zustand";
import { keepChosen, loadChosen } from "./fileStore";
import { meId } from "./session";

const NONE: readonly File[] = [];
/** Most files of a message, as the server's field allows. */
const MOST = 10;

const useStore = create<{ rooms: Record<string, readonly File[]> }>(() => ({ rooms: {} }));

export function useChosenFiles(roomId: string): readonly File[] {
  useEffect(() => {
    if (useStore.getState().rooms[roomId]) return;
    void loadChosen(meId(), roomId).then((files) =>
      // Files that were chosen during the load are newer.
      useStore.setState(({ rooms }) => (rooms[roomId] ? {} : { rooms: { ...rooms, [roomId]: files } })),
    );
  }, [roomId]);
  return useStore((state) => state.rooms[roomId] ?? NONE);
}

export function chooseFiles(roomId: string, files: readonly File[]): void {
  const kept = files.slice(0, MOST);
  useStore.setState(({ rooms }) => ({ rooms: { ...rooms, [roomId]: kept } }));
  void keepChosen(meId(), roomId, kept);
}

export const closeChosenFiles = (): void => useStore.setState({ rooms: {} });
