// Users by id, as far as loaded, and the online statuses of users on the screen.

import type { RealtimeStatus, User } from "konvert-backend-adapter/interface";
import { useEffect } from "react";
import { create } from "zustand";
import { backend } from "./backend";
import { useConnection } from "./connection";

export type Person = User;

interface People {
  people: Record<string, Person>;
  statuses: Record<string, { status: RealtimeStatus; lastSeen: number | null }>;
}

export const usePeople = create<People>(() => ({ people: {}, statuses: {} }));

export const nameOf = (person: Pick<Person, "display_name" | "username"> | undefined): string =>
  person?.display_name || person?.username || "";

export const personNow = (id: string): Person | undefined => usePeople.getState().people[id];

export function rememberPeople(users: readonly User[]): void {
  if (!users.length) return;
  usePeople.setState(({ people }) => ({
    people: { ...people, ...Object.fromEntries(users.map((user) => [user.id, { ...people[user.id], ...user }])) },
  }));
}

const asked = new Set<string>();

/** Loads a user once. A user who cannot be loaded stays unknown: messages carry a copy of the name. */
export function needPerson(id: string): void {
  if (!id || asked.has(id) || personNow(id)) return;
  asked.add(id);
  backend()
    .getUserById(id)
    .then(
      ({ user }) => rememberPeople([user]),
      () => undefined,
    );
}

export async function refreshPerson(id: string): Promise<Person> {
  const { user } = await backend().getUserById(id);
  rememberPeople([user]);
  return user;
}

export function usePerson(id: string): Person | undefined {
  useEffect(() => needPerson(id), [id]);
  return usePeople((state) => state.people[id]);
}

// One subscription per user with a status on the screen, for any number of views.
const watched = new Map<string, { users: number; stop: () => void }>();

function watchStatus(id: string): () => void {
  const entry = watched.get(id) ?? {
    users: 0,
    stop: backend().subscribeToUserStatus(id, (status, state) => {
      usePeople.setState(({ statuses }) => ({
        statuses: { ...statuses, [id]: { status, lastSeen: state.last_seen } },
      }));
    }),
  };
  entry.users += 1;
  watched.set(id, entry);
  return () => {
    entry.users -= 1;
    if (entry.users > 0 || watched.get(id) !== entry) return;
    watched.delete(id);
    entry.stop();
  };
}

/** Keeps the statuses of the users fresh while the view is shown. */
export function useStatuses(ids: readonly string[]): Record<string, RealtimeStatus> {
  const key = ids.join(" ");
  useEffect(() => {
    const stops = key ? key.split(" ").map(watchStatus) : [];
    return () => stops.forEach((stop) => stop());
  }, [key]);
  const statuses = usePeople((state) => state.statuses);
  return Object.fromEntries(ids.map((id) => [id, statuses[id]?.status ?? "offline"]));
}

/** The status of a user; without one while the page is cut off, since the last known status may be over. */
export function useStatus(id: string): { status?: RealtimeStatus | undefined; lastSeen: number | null } {
  useEffect(() => (id ? watchStatus(id) : undefined), [id]);
  const known = usePeople((state) => state.statuses[id]) ?? OFFLINE;
  return useConnection((state) => state.lost) ? UNKNOWN : known;
}

const OFFLINE = { status: "offline", lastSeen: null } as const;
const UNKNOWN = { lastSeen: null };

export function closePeople(): void {
  for (const { stop } of watched.values()) stop();
  watched.clear();
  asked.clear();
  usePeople.setState({ people: {}, statuses: {} });
}
