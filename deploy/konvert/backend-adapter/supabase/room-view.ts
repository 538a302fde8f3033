// A subscribed room: compares the messages of each poll with the messages known to the viewers.

import { UnsupportedError, type BackendError } from "../errors.js";
import type { Message, Room, RoomHandlers, Unsubscribe } from "../interface.js";
import type { MessageReader } from "./messages.js";
import type { Watch } from "./watch.js";

/** Messages read by each poll. */
const WINDOW = 100;
/** Most questions to vote on that are watched, newest first. */
const POLLS = 10;
/** Reasons of an end, with the gateway's codes (proto/README.md). */
const DENIED = { code: 103, reason: "permission denied", deleted: false };
const LOST = { code: 2100, reason: "membership ended", deleted: false };
const GONE = { code: 2102, reason: "room deleted", deleted: true };

export interface Viewer {
  callback: (message: Message) => void;
  handlers: RoomHandlers;
}

export class RoomView {
  readonly viewers = new Set<Viewer>();
  /** Content of known messages; dates of the messages of the last poll, `null` before the first poll. */
  private known = new Map<string, string>();
  private read: Map<string, string> | null = null;
  private room: { shown: Room; readMarks: Record<string, string> } | null = null;
  private polls = new Map<string, string>();
  private isClosed = false;
  private hasLeft = false;
  private failed = false;
  private toldTyping = false;
  private readonly messages: { now: () => void; end: Unsubscribe };
  private pollWatch: { now: () => void; end: Unsubscribe } | null = null;

  constructor(
    readonly roomId: string,
    private readonly reader: MessageReader,
    private readonly watch: Watch,
    private readonly readPoll: (pollId: string) => Promise<string>,
  ) {
    this.messages = watch.repeat(
      watch.periods.messages,
      () => this.poll(),
      (error) => this.failure(error),
    );
  }

  add(viewer: Viewer): void {
    this.viewers.add(viewer);
    if (viewer.handlers.onPoll) {
      this.pollWatch ??= this.watch.repeat(
        this.watch.periods.polls,
        () => this.pollPolls(),
        () => {},
      );
    }
    if (this.read && !this.isClosed) viewer.handlers.onReady?.();
  }

  now(): void {
    this.messages.now();
  }

  end(): void {
    this.messages.end();
    this.pollWatch?.end();
  }

  private tell(call: (handlers: RoomHandlers) => void): void {
    for (const { handlers } of [...this.viewers]) call(handlers);
  }

  /** Reports a message to the viewers, unless unchanged; tells whether it was reported. */
  put(message: Message): boolean {
    const content = JSON.stringify(message);
    if (this.known.get(message.id) === content) return false;
    this.known.set(message.id, content);
    for (const { callback } of [...this.viewers]) callback(message);
    return true;
  }

  drop(messageId: string): void {
    if (this.known.delete(messageId) || this.read?.has(messageId))
      this.tell((handlers) => handlers.onDelete?.(messageId));
    this.read?.delete(messageId);
  }

  // ---- messages

  private async poll(): Promise<void> {
    // Reading a public room joins the room, so a room is not read after leaving.
    if (this.hasLeft) return;
    const messages = await this.reader.newest(this.roomId, WINDOW);
    if (this.hasLeft) return;
    this.failed = false;
    const before = this.read;
    this.read = new Map(messages.map(({ id, created_at }) => [id, created_at]));
    if (!before || this.isClosed) {
      if (before) this.resync();
      this.isClosed = false;
      for (const message of messages) this.known.set(message.id, JSON.stringify(message));
      this.tell((handlers) => handlers.onReady?.());
      return;
    }
    this.deletions(before, messages);
    for (const message of messages) {
      const isNew = !this.known.has(message.id);
      if (this.put(message) && isNew) this.watch.delivered(message.created_at);
    }
    this.forgetOld();
  }

  private deletions(before: Map<string, string>, messages: Message[]): void {
    const now = new Set(messages.map(({ id }) => id));
    const oldest = messages[0]?.created_at ?? "";
    if (before.size > 0 && messages.length >= WINDOW && ![...before.keys()].some((id) => now.has(id))) {
      this.resync(); // more new messages than one poll reads
      return;
    }
    for (const [id, created] of before) if (!now.has(id) && created >= oldest) this.drop(id);
  }

  private resync(): void {
    this.watch.resync();
    this.tell((handlers) => handlers.onResync?.("missed"));
  }

  /** Bounds the memory: polls compare the newest messages only. */
  private forgetOld(): void {
    if (this.known.size <= 4 * WINDOW) return;
    for (const id of [...this.known.keys()].slice(0, this.known.size - 2 * WINDOW))
      if (!this.read?.has(id)) this.known.delete(id);
  }

  private failure(error: BackendError): void {
    if (error.code === "not_found" || error.code === "forbidden" || error.code === "banned") {
      this.close(!this.read ? DENIED : error.code === "not_found" ? GONE : LOST);
    } else if (!this.failed) {
      this.failed = true; // once for each interruption
      this.tell((handlers) => handlers.onError?.(error));
    }
  }

  /** Tells the viewers. Polling goes on, to notice returned access. */
  private close(why: { code: number; reason: string; deleted: boolean }): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.tell((handlers) => handlers.onClosed?.(why));
  }

  left(): void {
    this.hasLeft = true;
    this.close(LOST);
  }

  joined(): void {
    this.hasLeft = false;
    this.messages.now();
  }

  // ---- the room itself

  /** A new state of the room, from the list of rooms; `undefined` if absent there. */
  listed(shown: Room | undefined, readMarks: Record<string, string>): void {
    if (!shown) return;
    const before = this.room;
    this.room = { shown, readMarks };
    if (!before) return;
    this.members(before.shown, before.readMarks, shown, readMarks);
    const { name, avatar_url, pinned_message_id, pinned_message_ids } = shown;
    const pins = JSON.stringify(pinned_message_ids) !== JSON.stringify(before.shown.pinned_message_ids);
    if (!pins && name === before.shown.name && avatar_url === before.shown.avatar_url) return;
    const room: Partial<Room> & { id: string } = { id: shown.id, name, pinned_message_ids };
    if (avatar_url !== undefined) room.avatar_url = avatar_url;
    if (pinned_message_id !== undefined) room.pinned_message_id = pinned_message_id;
    this.tell((handlers) => handlers.onRoom?.(room));
  }

  private members(was: Room, wasRead: Record<string, string>, is: Room, isRead: Record<string, string>): void {
    const role = (id: string) => (id === is.created_by ? ("owner" as const) : ("member" as const));
    const [old, now] = [new Set(was.members), new Set(is.members)];
    for (const id of is.members) {
      const mark = isRead[id];
      const change = { userId: id, role: role(id), ...(mark === undefined ? {} : { last_read: mark }) };
      if (!old.has(id)) this.tell((handlers) => handlers.onMember?.({ action: "create", ...change }));
      else if (mark !== wasRead[id]) this.tell((handlers) => handlers.onMember?.({ action: "update", ...change }));
    }
    for (const id of was.members) {
      if (!now.has(id)) this.tell((handlers) => handlers.onMember?.({ action: "delete", userId: id, role: role(id) }));
    }
  }

  // ---- polls, typing

  private async pollPolls(): Promise<void> {
    if (this.hasLeft || this.isClosed) return;
    const ids = [...(this.read?.keys() ?? [])].filter((id) => this.reader.known(id)?.type === "poll").slice(-POLLS);
    for (const id of ids) {
      const before = this.polls.get(id);
      const content = await this.readPoll(id);
      this.polls.set(id, content);
      if (before !== undefined && before !== content) this.tell((handlers) => handlers.onPoll?.(id, id));
    }
  }

  /** Reports the missing function once, by onError: an exception at each key stroke would hinder the typing. */
  typing(): void {
    if (this.toldTyping) return;
    this.toldTyping = true;
    const error = new UnsupportedError("sendTyping", "the old backend has no realtime.");
    this.tell((handlers) => handlers.onError?.(error));
  }
}
