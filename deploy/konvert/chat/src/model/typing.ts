// Typing users by room.

import { create } from "zustand";
import { backend } from "./backend";

interface Typing {
  rooms: Record<string, readonly string[]>;
}

export const useTypingStore = create<Typing>(() => ({ rooms: {} }));
const timers = new Map<string, ReturnType<typeof setTimeout>>();
const NOBODY: readonly string[] = [];

export const useTyping = (roomId: string): readonly string[] =>
  useTypingStore((state) => state.rooms[roomId] ?? NOBODY);

export function showTyping(roomId: string, userId: string, until: number): void {
  const key = `${roomId} ${userId}`;
  clearTimeout(timers.get(key));
  timers.set(
    key,
    setTimeout(() => stopTyping(roomId, userId), Math.max(0, until - Date.now())),
  );
  useTypingStore.setState(({ rooms }) => {
    const typing = rooms[roomId] ?? NOBODY;
    return typing.includes(userId) ? {} : { rooms: { ...rooms, [roomId]: [...typing, userId] } };
  });
}

export function stopTyping(roomId: string, userId: string): void {
  const key = `${roomId} ${userId}`;
  if (!timers.has(key)) return;
  clearTimeout(timers.get(key));
  timers.delete(key);
  useTypingStore.setState(({ rooms }) => ({
    rooms: { ...rooms, [roomId]: (rooms[roomId] ?? []).filter((id) => id !== userId) },
  }));
}

export const signalTyping = (roomId: string): void => backend().sendTyping(roomId);

export function closeTyping(): void {
  for (const timer of timers.values()) clearTimeout(timer);
  timers.clear();
  useTypingStore.setState({ rooms: {} });
}
