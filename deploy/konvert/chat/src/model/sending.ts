// Sending, editing and sending again. Texts wait in the adapter's outbox while the network is away; messages with files
// wait here and in IndexedDB, since the adapter's storage is too small for files.

import type { Message, MessageType } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { BackendError } from "konvert-backend-adapter/errors";
import { backend } from "./backend";
import { writeContent } from "./content";
import { draftOf, keepDraft } from "./drafts";
import { sealFiles } from "./files";
import { dropHeld, keepHeld, loadHeld } from "./fileStore";
import { compareClocks, measure } from "./measure";
import { isMuted, roomNow, viewOf } from "./rooms";
import { problemText, report } from "./problems";
import { meId, useSession } from "./session";
import { change, put, takeAway, timelineNow, type ShownMessage } from "./timeline";
import { useConnection } from "./connection";
import { nameOf } from "./people";

interface Outgoing {
  replyTo?: string | undefined;
  files?: readonly File[];
  mentions?: string[];
}

/** Messages with files, until the server has stored the message. */
const held = new Map<string, { text: string; options: Outgoing; message: Message }>();
/** Messages with an attempt under way. */
const sending = new Set<string>();

const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";
const newId = (): string => [...crypto.getRandomValues(new Uint8Array(15))].map((byte) => LETTERS[byte % 36]).join("");

/** Whether the room's messages are encrypted. After a reload the list may lack the room: a guess could send plain text. */
async function encrypts(roomId: string): Promise<boolean> {
  const room = roomNow(roomId) ?? (await backend().getRoom(roomId)).room;
  return viewOf(room, meId(), isMuted(useSession.getState().user)).encrypted;
}

function typeOf(files: readonly File[]): MessageType {
  if (!files.length) return "text";
  return files.every((file) => file.type.startsWith("image/")) ? "image" : "file";
}

export async function send(roomId: string, text: string, options: Outgoing): Promise<void> {
  const me = useSession.getState().user;
  const files = options.files ?? [];
  const message: Message = {
    id: newId(),
    room_id: roomId,
    sender_id: meId(),
    sender_username: me?.username ?? "",
    sender_display_name: nameOf(me ?? undefined),
    content: text,
    type: typeOf(files),
    created_at: new Date().toISOString(),
    reactions: {},
    state: "pending",
    ...(options.replyTo && { reply_to: options.replyTo }),
    ...(options.mentions?.length && { mentions: options.mentions }),
  };
  hold(text, options, message);
  if (files.length) {
    const { replyTo, mentions } = options;
    await keepHeld(meId(), { text, files, message, ...(replyTo && { replyTo }), ...(mentions && { mentions }) });
  }
  await deliver(message.id);
}

function hold(text: string, options: Outgoing, message: Message): void {
  const files = options.files ?? [];
  put(message.room_id, [
    {
      ...message,
      attachments: files.map((file) => ({ name: file.name, size: file.size, url: URL.createObjectURL(file) })),
    },
  ]);
  held.set(message.id, { text, options, message });
  count();
}

let stop: (() => void) | undefined;

/** Continues with the messages of an earlier visit, and sends waiting messages whenever the connection is back. */
export async function openSending(user: string): Promise<void> {
  stop = useConnection.subscribe(({ state, online }, before) => {
    const isBack = (state === "connected" && before.state !== "connected") || (online && !before.online);
    if (isBack) for (const id of held.keys()) if (!hasFailed(id)) void deliver(id);
  });
  for (const { text, message, ...options } of await loadHeld(user)) {
    if (held.has(message.id) || meId() !== user) continue;
    hold(text, options, message);
    void deliver(message.id);
  }
}

export function closeSending(): void {
  stop?.();
  held.clear();
}

const failed = new Set<string>();
const hasFailed = (id: string): boolean => failed.has(id);

async function deliver(id: string): Promise<void> {
  const entry = held.get(id);
  if (!entry || sending.has(id)) return;
  const { text, options, message } = entry;
  sending.add(id);
  failed.delete(id);
  const files = options.files ?? [];
  const began = Date.now();
  try {
    const encrypted = await encrypts(message.room_id);
    const sealed = encrypted ? await sealFiles(message.room_id, files) : [...files];
    const notes = files.map(({ name, type, size }) => ({ name, type, size }));
    const content = await writeContent(message.room_id, { text, files: encrypted ? notes : [] }, encrypted);
    const { message: result } = await backend().sendMessage(message.room_id, content, message.type, options.replyTo, {
      id,
      ...(sealed.length && { files: sealed }),
      ...((encrypted || options.mentions?.length) && { mentions: options.mentions ?? [] }),
    });
    // The adapter keeps a text that waits for the network.
    held.delete(id);
    if (files.length) void dropHeld(meId(), id);
    put(message.room_id, [result]);
    if (result.state) return;
    compareClocks(began, Date.now(), result.created_at);
    measure(result);
  } catch (error) {
    if (!(await settled(id, message, error))) refuse(message, error);
  } finally {
    sending.delete(id);
    count();
  }
}

/** Whether an error needs no answer by the user: the network is away, or an earlier attempt has stored the message. */
async function settled(id: string, message: Message, error: unknown): Promise<boolean> {
  if (!(error instanceof BackendError) || !held.get(id)?.options.files?.length) return false;
  if (error.code === "network") return true; // waits for the connection
  if (!("id" in error.fields)) return false;
  const stored = await backend()
    .getMessage(id)
    .then(
      (reply) => reply.message,
      () => null,
    );
  if (stored?.sender_id !== meId()) return false;
  held.delete(id);
  void dropHeld(meId(), id);
  put(message.room_id, [stored]);
  return true;
}

function refuse(message: Pick<Message, "id" | "room_id">, error: unknown): void {
  if (!(error instanceof BackendError)) console.error(error);
  failed.add(message.id);
  change(message.room_id, ({ messages }) => ({
    messages: messages.map((one) =>
      one.id === message.id ? { ...one, state: "failed", problem: problemText(error) } : one,
    ),
  }));
}

/** Sends a failed message again. */
export function retry(message: ShownMessage): void {
  change(message.room_id, ({ messages }) => ({
    messages: messages.map(({ problem: _, ...one }) => (one.id === message.id ? { ...one, state: "pending" } : one)),
  }));
  if (held.has(message.id)) return void deliver(message.id);
  backend()
    .retryMessage(message.id)
    .then(({ message: result }) => put(message.room_id, [result]))
    .catch((error: unknown) => refuse(message, error))
    .finally(count);
}

/** Removes an unsent message; the text returns to the composer if the composer is empty. */
export function discard(message: ShownMessage): void {
  if (held.delete(message.id)) void dropHeld(meId(), message.id);
  else backend().discardMessage(message.id);
  takeAway(message.room_id, message.id);
  if (message.text && !draftOf(message.room_id).text) keepDraft(message.room_id, { text: message.text });
  count();
}

export async function edit(roomId: string, id: string, text: string): Promise<void> {
  const old = timelineNow(roomId).messages.find((message) => message.id === id);
  if (old?.text === text) return;
  try {
    const content = await writeContent(
      roomId,
      { text, files: old?.attachments.flatMap(({ note }) => note ?? []) ?? [] },
      await encrypts(roomId),
    );
    const { message } = await backend().editMessage(id, content);
    put(roomId, [message]);
  } catch (error) {
    report(error);
    if (!draftOf(roomId).text) keepDraft(roomId, { text, editing: id }); // nothing typed is lost
  }
}

/** Number of messages that the server has not stored. */
export const useUnsent = create<{ count: number }>(() => ({ count: 0 }));

function count(): void {
  const pending = new Set([
    ...backend()
      .getPendingMessages()
      .map(({ id }) => id),
    ...held.keys(),
  ]);
  useUnsent.setState({ count: pending.size });
}
export const countUnsent = count;
