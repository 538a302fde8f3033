// The user's rooms, kept fresh by the adapter.

import type { Member, MemberRole, Room } from "konvert-backend-adapter/interface";
import { useMemo } from "react";
import { create } from "zustand";
import { backend } from "./backend";
import { rememberPeople } from "./people";
import { attempt } from "./problems";
import { isEncrypted, useSecrecy } from "./secrecy";
import { meId, useSession } from "./session";

/** A room with the values that views derive. */
export interface RoomView extends Room {
  unread: number;
  mentioned: boolean;
  pinned: readonly string[];
  member: boolean;
  moderator: boolean;
  owner: boolean;
  mayWrite: boolean;
  mayPin: boolean;
  /** Whether new messages are encrypted. */
  encrypted: boolean;
  /** The other user of a direct room. */
  other: string | null;
}

interface Rooms {
  rooms: Record<string, Room>;
  loaded: boolean;
  members: Record<string, Member[]>;
}

export const useRooms = create<Rooms>(() => ({ rooms: {}, loaded: false, members: {} }));

let stop: (() => void) | undefined;

export function openRooms(_user: string): void {
  stop = backend().subscribeToRoomUpdates(
    (rooms) => {
      useRooms.setState({ rooms: Object.fromEntries(rooms.map((room) => [room.id, room])), loaded: true });
    },
    { onError: () => undefined }, // shown by the connection banner
  );
}

export function closeRooms(): void {
  stop?.();
  useRooms.setState({ rooms: {}, loaded: false, members: {} });
}

export const roomNow = (id: string): Room | undefined => useRooms.getState().rooms[id];

/** Puts a changed room into the list before the adapter reports it. */
export function putRoom(room: Partial<Room> & { id: string }): void {
  useRooms.setState(({ rooms }) => {
    const known = rooms[room.id];
    return known || "name" in room ? { rooms: { ...rooms, [room.id]: { ...known, ...room } as Room } } : {};
  });
}

export function dropRoom(id: string): void {
  useRooms.setState(({ rooms: { [id]: _, ...rooms } }) => ({ rooms }));
}

export function viewOf(room: Room, me: string, muted: boolean): RoomView {
  const role: MemberRole | undefined = room.my_role;
  const member = role !== undefined;
  return {
    ...room,
    unread: room.unread_count[me] ?? 0,
    mentioned: (room.unread_mentions[me] ?? 0) > 0,
    pinned: room.pinned_message_ids,
    member,
    moderator: role === "owner" || role === "moderator",
    owner: role === "owner",
    mayWrite: member && !muted,
    mayPin: member && (room.type === "dm" || role === "owner" || role === "moderator"),
    encrypted: isEncrypted(room),
    other: room.type === "dm" ? ((room.dm_participants ?? room.members).find((id) => id !== me) ?? null) : null,
  };
}

export const isMuted = (user: { muted?: boolean; mute_until?: string } | null): boolean =>
  user?.muted === true && (user.mute_until === undefined || user.mute_until > new Date().toISOString());

export function useRoom(id: string): RoomView | undefined {
  const room = useRooms((state) => state.rooms[id]);
  const user = useSession((state) => state.user);
  const secrecy = useSecrecy((state) => state.state);
  return useMemo(() => room && viewOf(room, user?.id ?? "", isMuted(user)), [room, user, secrecy]);
}

/** The rooms of the list, the latest activity first. */
export function useRoomList(): RoomView[] {
  const rooms = useRooms((state) => state.rooms);
  const user = useSession((state) => state.user);
  return useMemo(
    () =>
      Object.values(rooms)
        .map((room) => viewOf(room, user?.id ?? "", isMuted(user)))
        .sort((a, b) => b.last_activity.localeCompare(a.last_activity)),
    [rooms, user],
  );
}

export async function loadMembers(roomId: string): Promise<Member[]> {
  const { members } = await backend().getMembers(roomId);
  rememberPeople(members.map(({ user }) => user));
  useRooms.setState((state) => ({ members: { ...state.members, [roomId]: members } }));
  return members;
}

export const useMembers = (roomId: string): Member[] | undefined => useRooms((state) => state.members[roomId]);

// Read marks: one write for a burst of messages.
const marking = new Map<string, ReturnType<typeof setTimeout>>();

export function markRead(roomId: string): void {
  const room = roomNow(roomId);
  const me = meId();
  if (!room?.my_role || document.visibilityState !== "visible" || marking.has(roomId)) return;
  if (!room.unread_count[me] && !room.unread_mentions[me] && !room.unread_reactions[me]) return;
  putRoom({ id: roomId, unread_count: { [me]: 0 }, unread_mentions: { [me]: 0 }, unread_reactions: { [me]: 0 } });
  marking.set(
    roomId,
    setTimeout(() => {
      marking.delete(roomId);
      backend()
        .markAsRead(roomId, true, true)
        .catch(() => undefined); // the next message marks again
    }, 400),
  );
}

export const joinRoom = (roomId: string): Promise<boolean> =>
  attempt(async () => {
    await backend().joinRoom(roomId);
    putRoom((await backend().getRoom(roomId)).room);
  });
