// The messages of the open rooms, decrypted, in order, with pending ones at the end.

import type { Attachment, Message, Unsubscribe } from "konvert-backend-adapter/interface";
import { useMemo } from "react";
import { create } from "zustand";
import { backend } from "./backend";
import { isBlocked } from "./blocked";
import { contentNow, isSecret, readContent, type FileNote } from "./content";
import { measure } from "./measure";
import { pollChanged } from "./polls";
import { codeText } from "./problems";
import { loadMembers, dropRoom, putRoom, roomNow } from "./rooms";
import { keyringOf, onKeys, shareKeys } from "./secrecy";
import { meId } from "./session";
import { showTyping, stopTyping } from "./typing";

/** A file of a message. `note`: the description, if the file is encrypted; name and size are then the note's. */
export interface ShownFile extends Attachment {
  key: string;
  note?: FileNote;
}

export interface ShownMessage extends Omit<Message, "attachments"> {
  key: string;
  mine: boolean;
  encrypted: boolean;
  /** Null as long as the device cannot decrypt the message. */
  text: string | null;
  attachments: readonly ShownFile[];
  /** Why the message was not sent, in the user's language. */
  problem?: string;
}

export interface Timeline {
  messages: readonly ShownMessage[];
  cursor: string | null;
  more: boolean;
  loading: boolean;
  failed: boolean;
  /** The user has lost access. */
  closed: boolean;
  presence: readonly string[];
}

const EMPTY: Timeline = {
  messages: [],
  cursor: null,
  more: true,
  loading: false,
  failed: false,
  closed: false,
  presence: [],
};
const PAGE = 50;

interface Timelines {
  rooms: Record<string, Timeline>;
}

export const useTimelines = create<Timelines>(() => ({ rooms: {} }));
export const useTimeline = (roomId: string): Timeline => useTimelines((state) => state.rooms[roomId] ?? EMPTY);
export const timelineNow = (roomId: string): Timeline => useTimelines.getState().rooms[roomId] ?? EMPTY;

export function useMessage(roomId: string, id: string): ShownMessage | undefined {
  const messages = useTimelines((state) => state.rooms[roomId]?.messages);
  return useMemo(() => (id ? messages?.find((message) => message.id === id) : undefined), [messages, id]);
}

export function change(roomId: string, what: Partial<Timeline> | ((old: Timeline) => Partial<Timeline>)): void {
  useTimelines.setState(({ rooms }) => {
    const old = rooms[roomId] ?? EMPTY;
    return { rooms: { ...rooms, [roomId]: { ...old, ...(typeof what === "function" ? what(old) : what) } } };
  });
}

export function shown(message: Message): ShownMessage {
  const content = contentNow(message);
  const files = (message.attachments ?? []).map((file, index) => ({
    ...file,
    key: `${message.id}/${index}`,
    ...(content?.files[index] && { note: content.files[index] }),
  }));
  return {
    ...message,
    key: message.id,
    mine: message.sender_id === meId(),
    encrypted: isSecret(message.content),
    text: content && content.text,
    attachments: files.map((file) => ({ ...file, ...described(file.note) })),
    ...(message.error && { problem: codeText(message.error.code) }),
  };
}

const described = (note: FileNote | undefined) => note && { name: note.name, size: note.size };

const byTime = (a: ShownMessage, b: ShownMessage): number =>
  // Pending messages stand at the end, in the order of sending.
  Number(a.state !== undefined) - Number(b.state !== undefined) ||
  a.created_at.localeCompare(b.created_at) ||
  a.id.localeCompare(b.id);

function inOrder(messages: ShownMessage[]): ShownMessage[] {
  for (let index = 1; index < messages.length; index += 1) {
    const [before, after] = [messages[index - 1], messages[index]];
    if (before && after && byTime(before, after) > 0) return messages.sort(byTime);
  }
  return messages;
}

const gone = new Set<string>();

/** Puts messages into a room's list; the newer state of a message replaces the older. */
export function put(roomId: string, incoming: readonly Message[]): void {
  const fresh = incoming.filter(({ id }) => !gone.has(id));
  if (!fresh.length) return;
  change(roomId, ({ messages }) => {
    const ids = new Map(messages.map((message, index) => [message.id, index]));
    const next = [...messages];
    for (const message of fresh) {
      const index = ids.get(message.id);
      const old = index === undefined ? undefined : next[index];
      // A late "pending" must not hide the stored message.
      if (old && message.state && !old.state) continue;
      if (index === undefined) next.push(shown(message));
      else next[index] = shown(message);
    }
    return { messages: inOrder(next) };
  });
  void decrypt(roomId, fresh);
}

export function takeAway(roomId: string, id: string, { forGood = true } = {}): void {
  if (forGood) gone.add(id);
  change(roomId, ({ messages }) => ({ messages: messages.filter((message) => message.id !== id) }));
}

async function decrypt(roomId: string, messages: readonly Message[]): Promise<void> {
  const locked = messages.filter((message) => contentNow(message) === null);
  if (!locked.length) return;
  let ask = true; // at most one question to the server for the batch
  const opened = new Map<string, Message>();
  for (const message of locked) {
    const content = await readContent(message, { ask });
    ask &&= content !== null;
    if (content) opened.set(message.id, message);
  }
  if (!opened.size) return;
  change(roomId, (old) => ({
    messages: old.messages.map((one) => {
      const source = opened.get(one.id);
      return source && source.content === one.content
        ? shown({ ...source, ...(one.state && { state: one.state }) })
        : one;
    }),
  }));
}

/** Tries the locked messages again, after new keys. */
onKeys((roomId) => {
  for (const [id, { messages }] of Object.entries(useTimelines.getState().rooms)) {
    if (roomId && id !== roomId) continue;
    const locked = messages.filter((message) => message.text === null);
    if (!locked.length) continue;
    void (async () => {
      for (const message of locked) await readContent(message);
      change(id, (old) => ({
        messages: old.messages.map((one) => (one.text === null && contentNow(one) ? { ...one, ...again(one) } : one)),
      }));
    })();
  }
});

/** Asks the server for keys of rooms with locked messages: a key may have been shared before the subscription. */
export function seekKeys(): void {
  for (const [id, { messages }] of Object.entries(useTimelines.getState().rooms))
    if (messages.some((message) => message.text === null)) void keyringOf(id, { ask: true });
}

function again(message: ShownMessage): Pick<ShownMessage, "text" | "attachments"> {
  const content = contentNow(message);
  const attachments = message.attachments.map((file, index) => {
    const note = content?.files[index];
    return note ? { ...file, note, ...described(note) } : file;
  });
  return { text: content && content.text, attachments };
}

// ---- loading and following a room

const open = new Map<string, { stop: Unsubscribe; users: number }>();

/** Follows a room while a view shows the room, and for a while after: the messages are then shown at once. */
export function openRoom(roomId: string): () => void {
  const entry = open.get(roomId);
  if (entry) open.delete(roomId); // moves to the end: the most recently used
  open.set(roomId, entry ?? { stop: follow(roomId), users: 0 });
  const kept = open.get(roomId);
  if (kept) kept.users += 1;
  if (!timelineNow(roomId).messages.length) void loadNewest(roomId);
  return () => {
    if (kept) kept.users -= 1;
    for (const [id, { stop, users }] of open) {
      if (open.size <= MOST_OPEN) break;
      if (users > 0) continue;
      stop();
      open.delete(id);
      useTimelines.setState(({ rooms: { [id]: _, ...rooms } }) => ({ rooms }));
    }
  };
}

const MOST_OPEN = 12;

function follow(roomId: string): Unsubscribe {
  let subscribed = false;
  return backend().subscribeToRoom(
    roomId,
    (message) => {
      if (!message.state && message.sender_id !== meId()) stopTyping(roomId, message.sender_id);
      const known = timelineNow(roomId).messages.some(({ id, state }) => id === message.id && !state);
      put(roomId, [message]);
      if (!message.state && !known) measure(message);
    },
    {
      onDelete: (id) => takeAway(roomId, id),
      onTyping: ({ userId, until }) => userId !== meId() && !isBlocked(userId) && showTyping(roomId, userId, until),
      onPoll: (_, messageId) => pollChanged(messageId),
      onPresence: (presence) => change(roomId, { presence }),
      onRoom: (room) => roomNow(roomId) && putRoom(room),
      onMember: () => {
        void loadMembers(roomId).catch(() => undefined);
        if (roomNow(roomId)?.type !== "public") void shareKeys(roomId);
      },
      onResync: () => void loadNewest(roomId),
      onReady: () => {
        const { closed, failed } = timelineNow(roomId);
        change(roomId, { closed: false });
        // The first load may have read the room before the subscription: a message in between has no event.
        if (!subscribed || closed || failed) {
          void loadNewest(roomId);
          // Likewise a member's new public key.
          if (roomNow(roomId)?.type !== "public") void shareKeys(roomId);
        }
        subscribed = true;
      },
      onClosed: ({ deleted }) => {
        change(roomId, { closed: true });
        if (deleted) dropRoom(roomId);
      },
      onError: () => undefined, // shown by the connection banner
    },
  );
}

/** Loads the newest page. Messages that were deleted meanwhile disappear; earlier pages load again on scrolling. */
export async function loadNewest(roomId: string): Promise<void> {
  const before = new Set(timelineNow(roomId).messages.map(({ id }) => id));
  change(roomId, { loading: true, failed: false });
  try {
    const { messages, cursor } = await backend().getMessages(roomId, { limit: PAGE });
    const oldest = messages.find(({ state }) => !state)?.created_at ?? "";
    const present = new Set(messages.map(({ id }) => id));
    change(roomId, (old) => {
      // Messages that arrived during the load may be newer than the page.
      const kept = old.messages.filter((one) => present.has(one.id) || one.state !== undefined || !before.has(one.id));
      // The pages join if the new page overlaps the messages in memory.
      const overlap = old.messages.some(({ id }) => present.has(id)) || cursor === null;
      const earlier = overlap ? old.messages.filter((one) => !one.state && one.created_at < oldest) : [];
      return {
        messages: [...earlier, ...kept],
        cursor: earlier.length ? old.cursor : cursor,
        more: earlier.length ? old.more : cursor !== null,
        loading: false,
      };
    });
    put(roomId, messages);
  } catch (error) {
    change(roomId, { loading: false, failed: true });
    if (!(error instanceof Error)) throw error;
  }
}

export async function loadOlder(roomId: string): Promise<void> {
  const { cursor, loading, more, failed } = timelineNow(roomId);
  if (loading || !more) return;
  if (cursor === null || failed) return loadNewest(roomId);
  change(roomId, { loading: true });
  try {
    // The further back a user reads, the larger the pages.
    const limit = Math.min(500, Math.max(100, timelineNow(roomId).messages.length));
    const page = await backend().getMessages(roomId, { limit, before: cursor });
    put(roomId, page.messages);
    change(roomId, { loading: false, cursor: page.cursor, more: page.cursor !== null });
  } catch {
    change(roomId, { loading: false, failed: true });
  }
}

/** Loads earlier pages until a message is there, for links and search results. */
export async function reach(roomId: string, id: string): Promise<boolean> {
  for (let pages = 0; pages < 100; pages += 1) {
    const { messages, more, loading, failed } = timelineNow(roomId);
    if (messages.some((message) => message.id === id)) return true;
    if (failed || (!more && !loading)) return false;
    if (loading) await new Promise((resolve) => setTimeout(resolve, 50));
    else await loadOlder(roomId);
  }
  return false;
}

export const lastOwnMessage = (roomId: string): ShownMessage | undefined =>
  timelineNow(roomId).messages.findLast((message) => message.mine && !message.state);

export function closeTimelines(): void {
  for (const { stop } of open.values()) stop();
  open.clear();
  gone.clear();
  useTimelines.setState({ rooms: {} });
}
