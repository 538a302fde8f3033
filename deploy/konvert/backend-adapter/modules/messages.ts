// Messages, reactions, search.

import type { RecordModel } from "pocketbase";
import { AbortedError, BackendError, InvalidError, TemporaryError } from "../errors.js";
import type {
  Attachment,
  CallOptions,
  Message,
  MessageType,
  MessagesModule,
  Page,
  PageOptions,
  SendOptions,
} from "../interface.js";
import { caseVariants, date, newId, present, quoted, type Context } from "./context.js";
import type { Draft, Outbox } from "./outbox.js";
import { list, text, type People } from "./people.js";

const PAGE = 50;
const MAX_PAGE = 500;
const EXPAND = "author,reactions_via_message";

/** The stored name, the original name and the size of each file of a message. */
export function filesOf(record: { [field: string]: unknown; files?: unknown; file_notes?: unknown }) {
  const notes = (record.file_notes ?? {}) as Record<string, { name: string; size: number } | undefined>;
  return list(record.files).map((stored) => ({ stored, ...(notes[stored] ?? { name: stored }) }));
}

/** Makes messages of records. */
export class MessageReader {
  constructor(
    private readonly context: Context,
    private readonly people: People,
  ) {}

  /** Message from a record with expanded author and reactions. */
  fromExpanded(record: RecordModel): Message {
    const author = record.expand?.author as RecordModel | undefined;
    if (author) this.people.toUser(author);
    const reactions: Record<string, string[]> = {};
    for (const reaction of (record.expand?.reactions_via_message ?? []) as RecordModel[]) {
      const emoji = text(reaction.emoji);
      reactions[emoji] = [...(reactions[emoji] ?? []), text(reaction.user)];
    }
    return this.fromRecord(record, reactions);
  }

  /** Message from a plain record and known reactions; the author comes from the cache. */
  fromRecord(record: RecordModel, reactions: Record<string, string[]>): Message {
    const author = this.people.cached(text(record.author));
    const edited = date(record.edited_at);
    const mentions = list(record.mentions);
    return present({
      id: record.id,
      room_id: text(record.room),
      sender_id: text(record.author),
      sender_username: author?.username ?? "",
      sender_display_name: author?.display_name,
      sender_avatar: author?.avatar_url,
      content: text(record.content),
      type: text(record.type) as MessageType,
      reply_to: text(record.reply_to) || undefined,
      created_at: date(record.created) ?? "",
      updated_at: date(record.updated),
      reactions,
      forwarded: record.forwarded === true || text(record.forwarded_from) !== "" ? true : undefined,
      forwarded_from: text(record.forwarded_from) || undefined,
      mentions: mentions.length > 0 ? mentions : undefined,
      edited: edited ? true : undefined,
      edited_at: edited,
      attachments: list(record.files).length > 0 ? this.attachments(record) : undefined,
    });
  }

  private attachments(record: RecordModel): Attachment[] {
    return filesOf(record).map(({ stored, ...file }) => ({
      ...file,
      url: this.context.pocketbase.files.getURL(record, stored),
    }));
  }

  fromDraft(draft: Draft): Message {
    const me = this.context.userId ?? "";
    const author = this.people.cached(me);
    const own = this.context.pocketbase.authStore.record;
    return present({
      id: draft.id,
      room_id: draft.room,
      sender_id: me,
      sender_username: author?.username ?? text(own?.username),
      sender_display_name: author?.display_name ?? (text(own?.name) || undefined),
      sender_avatar: author?.avatar_url,
      content: draft.content,
      type: draft.type,
      reply_to: draft.replyTo,
      created_at: draft.created,
      reactions: {},
      mentions: draft.mentions,
      state: draft.failed ? ("failed" as const) : ("pending" as const),
      error: draft.failed,
    });
  }

  async one(id: string, options?: CallOptions): Promise<Message> {
    const record = await this.context.call(options, (request) =>
      this.context.collection("messages").getOne(id, { ...request, expand: EXPAND }),
    );
    return this.fromExpanded(record);
  }

  /** Page of messages for a filter, newest first, with the cursor of the next page. */
  async newest(filter: string, page: PageOptions): Promise<{ messages: Message[] } & Page> {
    const limit = Math.max(1, Math.min(page.limit ?? PAGE, MAX_PAGE));
    const { items } = await this.context.call(page, (request) =>
      this.context.collection("messages").getList(1, limit, {
        ...request,
        filter: [filter, "deleted=false", before(page.before)].filter(Boolean).join(" && "),
        sort: "-created,-id",
        expand: EXPAND,
        skipTotal: true,
      }),
    );
    const last = items.length === limit ? items.at(-1) : undefined;
    return {
      messages: items.map((record) => this.fromExpanded(record)),
      cursor: last ? `${text(last.created)}|${last.id}` : null,
    };
  }
}

/** Filter for messages older than a cursor; the form lets SQLite use the index of the dates. */
function before(cursor: string | undefined): string {
  if (!cursor) return "";
  const [created = "", id = ""] = cursor.split("|");
  if (!/^[\d\-: .TZ]+$/.test(created) || !/^[a-z0-9]+$/.test(id))
    throw new InvalidError("before: not a cursor of an earlier page.");
  return `created<=${quoted(created)} && (created<${quoted(created)} || id<${quoted(id)})`;
}

/** Idempotent create: returns the record of an earlier attempt if there is a record with the id. */
export async function storeDraft(context: Context, reader: MessageReader, draft: Draft): Promise<Message> {
  const author = context.me();
  const data = {
    id: draft.id,
    room: draft.room,
    author,
    content: draft.content,
    type: draft.type,
    ...(draft.replyTo ? { reply_to: draft.replyTo } : {}),
    ...(draft.mentions ? { mentions: draft.mentions } : {}),
  };
  try {
    const record = await context.write(undefined, { collection: "messages" }, (request) =>
      context.collection("messages").create(data, { ...request, expand: EXPAND }),
    );
    return reader.fromExpanded(record);
  } catch (error) {
    if (!(error instanceof BackendError) || error.temporary || !("id" in error.fields)) throw error;
    const existing = await reader.one(draft.id).catch((problem: BackendError) => {
      throw problem.temporary ? problem : error;
    });
    if (existing.sender_id !== author || existing.room_id !== draft.room) throw error;
    return existing;
  }
}

export interface RoomStores {
  /** Remembers loaded messages; later events apply to the remembered state. */
  loaded(roomId: string, messages: Message[]): void;
  /** Shows a message after a change by this client. */
  changed(message: Message): void;
  /** Reads a message again after a change by this client. */
  refresh(roomId: string, messageId: string): void;
  deleted(roomId: string, messageId: string): void;
}

export function messagesModule(
  context: Context,
  reader: MessageReader,
  outbox: Outbox<Message>,
  stores: RoomStores,
): MessagesModule {
  const records = () => context.collection("messages");
  const reactions = () => context.collection("reactions");

  async function outcome(result: Promise<{ stored: Message } | { pending: Draft }>, signal?: AbortSignal, id?: string) {
    const abort = () => id && outbox.discard(id);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const settled = await result;
      return { message: "stored" in settled ? settled.stored : reader.fromDraft(settled.pending) };
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  async function sendFiles(draft: Draft, files: File[], options: SendOptions): Promise<{ message: Message }> {
    const data = {
      ...{ id: draft.id, room: draft.room, author: context.me(), content: draft.content, type: draft.type, files },
      ...(draft.replyTo ? { reply_to: draft.replyTo } : {}),
      ...(draft.mentions ? { mentions: draft.mentions } : {}),
    };
    const record = await context.write(options, { collection: "messages" }, (request) =>
      records().create(data, { ...request, expand: EXPAND }),
    );
    const message = reader.fromExpanded(record);
    stores.changed(message);
    return { message };
  }

  async function roomOf(messageId: string, options?: CallOptions): Promise<string> {
    const { room } = await context.call(options, (request) =>
      records().getOne(messageId, { ...request, fields: "room" }),
    );
    return text(room);
  }

  return {
    async getMessages(roomId, page = {}, options) {
      const wanted: PageOptions = typeof page === "number" ? { limit: page, ...options } : { ...page, ...options };
      const { messages, cursor } = await reader.newest(`room=${quoted(roomId)}`, wanted);
      // A forbidden room looks empty in a list request, so the room itself is requested.
      if (messages.length === 0 && !wanted.before) {
        await context.call(wanted, (request) =>
          context.collection("rooms").getOne(roomId, { ...request, fields: "id" }),
        );
      }
      messages.reverse();
      stores.loaded(roomId, messages);
      const stored = new Set(messages.map(({ id }) => id));
      const pending = wanted.before ? [] : outbox.list(roomId).filter(({ id }) => !stored.has(id));
      return { messages: [...messages, ...pending.map((draft) => reader.fromDraft(draft))], cursor };
    },

    getMessage: async (messageId, options) => ({ message: await reader.one(messageId, options) }),

    async sendMessage(roomId, content, type = "text", replyTo, options = {}) {
      context.me();
      if (options.signal?.aborted) throw new AbortedError();
      const draft: Draft = present({
        id: options.id ?? newId(),
        room: roomId,
        content,
        type,
        replyTo,
        mentions: options.mentions,
        created: new Date().toISOString(),
      });
      if (options.files && options.files.length > 0) return sendFiles(draft, options.files, options);
      if (content === "") throw new InvalidError("A message needs content.");
      return outcome(outbox.send(draft), options.signal, draft.id);
    },

    async editMessage(messageId, content, options) {
      const data = { content, ...(options?.mentions ? { mentions: options.mentions } : {}) };
      const record = await context.write(options, { collection: "messages", id: messageId }, (request) =>
        records().update(messageId, data, { ...request, expand: EXPAND }),
      );
      const message = reader.fromExpanded(record);
      stores.changed(message);
      return { message };
    },

    async deleteMessage(messageId, options) {
      const room = await roomOf(messageId, options);
      await context.write(options, { collection: "messages", id: messageId }, (request) =>
        records().delete(messageId, request),
      );
      stores.deleted(room, messageId);
    },

    async addReaction(messageId, emoji, options) {
      const data = { message: messageId, user: context.me(), emoji };
      try {
        const record = await context.write(options, { collection: "reactions" }, (request) =>
          reactions().create(data, { ...request, expand: "message" }),
        );
        stores.refresh(text((record.expand?.message as RecordModel | undefined)?.room), messageId);
      } catch (error) {
        if (!(error instanceof BackendError) || error.code !== "conflict") throw error; // the reaction exists
      }
    },

    async removeReaction(messageId, emoji, options) {
      const filter = `message=${quoted(messageId)} && user=${quoted(context.me())} && emoji=${quoted(emoji)}`;
      const { items } = await context.call(options, (request) =>
        reactions().getList(1, 1, { ...request, filter, expand: "message", skipTotal: true }),
      );
      const [own] = items;
      if (!own) {
        await reader.one(messageId, options); // a message out of sight is an error, a missing reaction is none
        return;
      }
      await context.write(options, { collection: "reactions", id: own.id }, (request) =>
        reactions().delete(own.id, request),
      );
      stores.refresh(text((own.expand?.message as RecordModel | undefined)?.room), messageId);
    },

    async forwardMessage(messageId, targetRoomId, options) {
      const body = {
        room: targetRoomId,
        id: newId(),
        ...(options?.content === undefined ? {} : { content: options.content }),
      };
      const { id } = await context.route<{ id: string }>("POST", `messages/${messageId}/forward`, body, options);
      const message = await reader.one(id, options);
      stores.changed(message);
      return { message };
    },

    async searchMessages(query, options = {}) {
      const words = query.trim();
      if (!words) return { messages: [], cursor: null };
      const match = caseVariants(words)
        .map((word) => `content~${quoted(word)}`)
        .join("||");
      const room = options.roomId ? `room=${quoted(options.roomId)} && ` : "";
      return reader.newest(`${room}type!="system" && (${match})`, options);
    },

    getPendingMessages: (roomId) => (context.userId ? outbox.list(roomId).map((draft) => reader.fromDraft(draft)) : []),
    retryMessage: (messageId) => outcome(outbox.retry(messageId)),
    discardMessage: (messageId) => outbox.discard(messageId),

    async getAttachmentUrl(attachment, options) {
      const token = await context.call(options, (request) => context.pocketbase.files.getToken(request));
      if (!token) throw new TemporaryError("server", "The server gave no token for files.");
      return { url: `${attachment.url}?token=${encodeURIComponent(token)}` };
    },
  };
}
