// Messages, reactions, search.

import { AbortedError, InvalidError, NotFoundError, UnsupportedError } from "../errors.js";
import type { CallOptions, Message, MessagesModule, Page, PageOptions, SendOptions } from "../interface.js";
import { newId, present } from "../modules/context.js";
import type { Draft, Outbox, Outcome } from "../modules/outbox.js";
import { text } from "../modules/people.js";
import { segment, type Client } from "./client.js";
import { row, rows, toMessage, type Row } from "./records.js";
import { isDirect, type RoomReader } from "./rooms.js";
import type { Sender } from "./sender.js";

const PAGE = 50;
const MAX_PAGE = 500;
/** Most messages read of a room; the backend makes a query for each message. */
const DEEPEST = 20_000;
/** Messages searched in a room, as many as in the backend's search route. */
const SEARCHED = 1000;
/** Size of the memory that maps message ids to rooms. */
const KEPT = 5000;

/** A stored message with its draft. */
export interface Sent {
  draft: Draft;
  message: Message;
}

/** Receiver of messages read or changed by this client. */
export interface MessageStores {
  changed(message: Message): void;
  replaced(roomId: string, draftId: string, message: Message): void;
  deleted(roomId: string, messageId: string): void;
}

/** Reads messages. */
export class MessageReader {
  private readonly seen = new Map<string, Message>();

  constructor(
    private readonly client: Client,
    private readonly rooms: RoomReader,
  ) {}

  remember(message: Message): Message {
    this.seen.delete(message.id);
    this.seen.set(message.id, message);
    if (this.seen.size > KEPT) for (const id of [...this.seen.keys()].slice(0, KEPT / 10)) this.seen.delete(id);
    return message;
  }

  known(messageId: string): Message | undefined {
    return this.seen.get(messageId);
  }

  forget(messageId: string): void {
    this.seen.delete(messageId);
  }

  clear(): void {
    this.seen.clear();
  }

  /**
   * The newest messages of a room, oldest first: the last `count` ids of the room's index, without deleted
   * messages. Reading a public room makes the caller a member, as in the old chat.
   */
  async newest(roomId: string, count: number, options?: CallOptions): Promise<Message[]> {
    if (isDirect(roomId) && !roomId.split(":").includes(this.client.me()))
      throw new NotFoundError("No such direct conversation.");
    const path = isDirect(roomId) ? `/dm/${segment(roomId)}/messages` : `/messages/${segment(roomId)}`;
    const answer = await this.client.get<Row>(`${path}?limit=${count}`, options);
    const found = new Map<string, Message>(); // the index can name a message twice
    for (const raw of rows(answer.messages)) if (text(raw.id)) found.set(text(raw.id), this.remember(toMessage(raw)));
    return [...found.values()];
  }

  /** A page of older messages. The backend has no offset, so growing parts from the newest message on are read. */
  async page(roomId: string, { before, limit = PAGE, signal }: PageOptions): Promise<{ messages: Message[] } & Page> {
    const size = Math.max(1, Math.min(limit, MAX_PAGE));
    const cursor = before === undefined ? null : parseCursor(before);
    const options = signal ? { signal } : {};
    let oldest: string | undefined;
    for (let count = cursor ? 2 * size : size; ; count *= 4) {
      const all = await this.newest(roomId, Math.min(count, DEEPEST), options);
      const older = cursor ? all.slice(0, position(all, cursor)) : all;
      const first = older[older.length - size];
      if (first) return { messages: older.slice(-size), cursor: `${first.created_at}|${first.id}` };
      // The backend counts deleted messages too: the end is reached when a longer part begins with the same message.
      if (count >= DEEPEST || oldest === (all[0]?.id ?? "")) return { messages: older, cursor: null };
      oldest = all[0]?.id ?? "";
    }
  }

  /** A message by its id. The backend has no route for single messages, so the caller's rooms are searched. */
  async one(messageId: string, options?: CallOptions): Promise<Message> {
    const known = this.seen.get(messageId);
    const rooms = known ? [known.room_id] : await this.memberRooms(options);
    for (const roomId of rooms) {
      const all = await this.newest(roomId, SEARCHED, options);
      const found = all.find(({ id }) => id === messageId);
      if (found) return found;
      if (known && known.created_at < (all[0]?.created_at ?? "")) return known; // older than what was read
    }
    this.seen.delete(messageId);
    throw new NotFoundError("No such message in the caller's rooms.");
  }

  async memberRooms(options?: CallOptions): Promise<string[]> {
    const { rooms } = await this.rooms.snapshot(options);
    return rooms.filter(({ my_role }) => my_role).map(({ id }) => id);
  }

  async search(query: string, roomId: string, options: CallOptions): Promise<Message[]> {
    const words = query.toLowerCase();
    // The backend's search route checks no membership, and searches the same newest messages.
    const all = await this.newest(roomId, SEARCHED, options);
    return all.filter(({ content, type }) => type !== "system" && content.toLowerCase().includes(words));
  }
}

function parseCursor(before: string): { created: string; id: string } {
  const [created = "", id = "", ...rest] = before.split("|");
  if (!id || rest.length > 0 || Number.isNaN(Date.parse(created)))
    throw new InvalidError("before: not a cursor of an earlier page.");
  return { created, id };
}

/** Index of the cursor's message; after its deletion, of the first message at or after its date. */
function position(all: Message[], { created, id }: { created: string; id: string }): number {
  const exact = all.findIndex((message) => message.id === id);
  if (exact >= 0) return exact;
  const later = all.findIndex(({ created_at }) => created_at >= created);
  return later >= 0 ? later : all.length;
}

/** Type of a message for a file, with the names of the old chat. */
function typeOf(file: File): Message["type"] {
  const kind = file.type.split("/")[0];
  return kind === "image" || kind === "audio" || kind === "video" ? kind : "file";
}

export interface MessageParts {
  client: Client;
  reader: MessageReader;
  outbox: Outbox<Sent>;
  sender: Sender;
  stores: MessageStores;
  fromDraft: (draft: Draft) => Message;
  upload: (file: File, options?: CallOptions) => Promise<{ url: string }>;
}

export function messagesModule({
  client,
  reader,
  outbox,
  sender,
  stores,
  fromDraft,
  upload,
}: MessageParts): MessagesModule {
  const path = (messageId: string, rest = "") => `/messages/${segment(messageId)}${rest}`;

  async function outcome(result: Promise<Outcome<Sent>>, signal?: AbortSignal, id?: string) {
    const abort = () => id && outbox.discard(id);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const settled = await result;
      return { message: "stored" in settled ? settled.stored.message : fromDraft(settled.pending) };
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  function changed(raw: unknown): Message {
    const message = reader.remember(toMessage(row(raw)));
    stores.changed(message);
    return message;
  }

  /** Check that the backend lacks: the caller must be able to read the message. */
  async function visible(messageId: string, options?: CallOptions): Promise<void> {
    if (!reader.known(messageId)) await reader.one(messageId, options);
  }

  /** The backend has no attachments: a file is a message whose content is the file's address. */
  async function fileContent(
    content: string,
    files: File[],
    options: SendOptions,
  ): Promise<{ content: string; type: Message["type"] }> {
    const [file, ...more] = files;
    if (!file || more.length > 0 || content !== "") {
      throw new UnsupportedError(
        "sendMessage",
        "the old backend takes one file for each message, and no text beside it.",
        {
          action: "Send each file and the text separately.",
        },
      );
    }
    const { url } = await upload(file, options);
    return { content: url, type: typeOf(file) };
  }

  const send = async (
    roomId: string,
    content: string,
    type: Message["type"],
    replyTo: string | undefined,
    options: SendOptions,
  ) => {
    client.me();
    if (options.signal?.aborted) throw new AbortedError();
    const before = options.id ? sender.messageOf(options.id) : undefined;
    if (before) return { message: before };
    const files = options.files ?? [];
    const sent = files.length > 0 ? await fileContent(content, files, options) : { content, type };
    if (sent.content === "") throw new InvalidError("A message needs content.");
    const draft: Draft = present({
      id: options.id ?? newId(),
      room: roomId,
      ...sent,
      replyTo,
      created: new Date().toISOString(),
    });
    return outcome(outbox.send(draft), options.signal, draft.id);
  };

  return {
    async getMessages(roomId, page = {}, options) {
      const wanted: PageOptions = typeof page === "number" ? { limit: page, ...options } : { ...page, ...options };
      const { messages, cursor } = await reader.page(roomId, wanted);
      const pending = wanted.before ? [] : outbox.list(roomId);
      return { messages: [...messages, ...pending.map(fromDraft)], cursor };
    },

    getMessage: async (messageId, options) => ({ message: await reader.one(messageId, options) }),

    sendMessage: (roomId, content, type = "text", replyTo, options = {}) =>
      send(roomId, content, type, replyTo, options),

    async editMessage(messageId, content, options) {
      await visible(messageId, options);
      return { message: changed(await client.put(path(messageId), { content }, options)) };
    },

    async deleteMessage(messageId, options) {
      await visible(messageId, options);
      await client.delete(path(messageId), options);
      const room = reader.known(messageId)?.room_id;
      reader.forget(messageId);
      if (room) stores.deleted(room, messageId);
    },

    async addReaction(messageId, emoji, options) {
      await visible(messageId, options);
      changed(await client.post(path(messageId, "/react"), { emoji }, options));
    },
    async removeReaction(messageId, emoji, options) {
      await visible(messageId, options);
      changed(await client.delete(path(messageId, `/react?emoji=${encodeURIComponent(emoji)}`), options));
    },

    async forwardMessage(messageId, targetRoomId, options = {}) {
      const { content, type } = await reader.one(messageId, options);
      return send(targetRoomId, options.content ?? content, type, undefined, options);
    },

    async searchMessages(query, options = {}) {
      const words = query.trim();
      if (!words) return { messages: [], cursor: null };
      const rooms = options.roomId ? [options.roomId] : await reader.memberRooms(options);
      const found: Message[] = [];
      for (const roomId of rooms) found.push(...(await reader.search(words, roomId, options)));
      found.sort((a, b) => b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id));
      const cursor = options.before === undefined ? null : parseCursor(options.before);
      const older = cursor ? found.filter((message) => compare(message, cursor) < 0) : found;
      const size = Math.max(1, Math.min(options.limit ?? PAGE, MAX_PAGE));
      const last = older.length > size ? older[size - 1] : undefined;
      return { messages: older.slice(0, size), cursor: last ? `${last.created_at}|${last.id}` : null };
    },

    getPendingMessages: (roomId) => (client.userId ? outbox.list(roomId).map(fromDraft) : []),
    retryMessage: (messageId) => outcome(outbox.retry(messageId)),
    discardMessage: (messageId) => outbox.discard(messageId),
    /** Addresses of files carry their own signature, valid for a year. */
    async getAttachmentUrl({ url }) {
      client.me();
      return { url }; // signed already
    },
  };
}

function compare(message: Message, { created, id }: { created: string; id: string }): number {
  return message.created_at.localeCompare(created) || message.id.localeCompare(id);
}
