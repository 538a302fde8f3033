// State of a subscribed room: applies events to loaded messages and reports changed messages.

import type { RecordModel } from "pocketbase";
import type { BackendError } from "../errors.js";
import type { Message, MemberRole, RoomHandlers } from "../interface.js";
import type { ChannelHandlers, RecordEvent } from "../realtime.js";
import { date, present } from "./context.js";
import type { MessageReader } from "./messages.js";
import { text, type People } from "./people.js";
import { Sequence } from "./sequence.js";

/** Maximum number of messages in memory; a reaction to an older message reads the message again. */
const KEPT = 2000;

export interface Viewer {
  callback: (message: Message) => void;
  handlers: RoomHandlers;
}

export class RoomView {
  readonly viewers = new Set<Viewer>();
  /** Ends the view's own subscription. */
  end: () => void = () => {};
  private messages = new Map<string, Message>();
  private readonly reading = new Map<string, Promise<void>>();
  /** Events of messages and reactions, in order. */
  private readonly arrivals = new Sequence();
  /** Ids of deleted messages, since a delayed event must not restore a message. */
  private gone = new Set<string>();

  constructor(
    readonly roomId: string,
    private readonly reader: MessageReader,
    private readonly people: People,
  ) {}

  get isWatched(): boolean {
    return this.viewers.size > 0;
  }

  tell(call: (handlers: RoomHandlers) => void): void {
    for (const { handlers } of [...this.viewers]) call(handlers);
  }

  /** Stores a message and reports the change, if any. */
  put(message: Message): void {
    if (JSON.stringify(this.messages.get(message.id)) === JSON.stringify(message)) return;
    this.keep(message);
    for (const { callback } of [...this.viewers]) callback(message);
  }

  forget(): void {
    this.messages = new Map();
  }

  keep(message: Message): void {
    this.messages.delete(message.id);
    this.messages.set(message.id, message);
    if (this.messages.size > KEPT)
      for (const id of [...this.messages.keys()].slice(0, KEPT / 10)) this.messages.delete(id);
  }

  drop(messageId: string): void {
    this.messages.delete(messageId);
    this.gone.add(messageId);
    if (this.gone.size > KEPT) this.gone = new Set([...this.gone].slice(KEPT / 10));
    this.tell((handlers) => handlers.onDelete?.(messageId));
  }

  /** Reads a message again; concurrent calls share a request. */
  refresh(messageId: string): Promise<void> {
    const running = this.reading.get(messageId);
    if (running) return running;
    const read = this.reader.one(messageId).then<unknown, unknown>(
      (message) => this.gone.has(messageId) || this.put(message),
      (error: BackendError) => {
        if (error.code !== "not_found") this.tell((handlers) => handlers.onError?.(error));
        else if (this.messages.has(messageId)) this.drop(messageId);
      },
    );
    const done = read.then(() => void this.reading.delete(messageId));
    this.reading.set(messageId, done);
    return done;
  }

  event({ action, collection, record }: RecordEvent): void {
    if (collection === "messages") {
      if (action === "delete") this.drop(record.id);
      else this.message(record);
    } else if (collection === "reactions") this.arrivals.run(() => this.reaction(action, record));
    else if (collection === "room_members") {
      this.tell((handlers) =>
        handlers.onMember?.(
          present({
            action: action as "create" | "update" | "delete",
            userId: text(record.user),
            role: text(record.role) as MemberRole,
            last_read: date(record.last_read),
          }),
        ),
      );
    } else if (collection === "polls" && action !== "delete") {
      this.tell((handlers) => handlers.onPoll?.(record.id, text(record.message) || record.id));
    } else if (collection === "rooms" && action !== "delete") {
      const pinned = text(record.pinned_message);
      this.tell((handlers) =>
        handlers.onRoom?.(present({ id: record.id, name: text(record.name), pinned_message_id: pinned || undefined })),
      );
    } else if (collection === "pins") this.tell((handlers) => handlers.onPins?.());
  }

  /** Reads an uncached author first, with the authors of other messages. Meanwhile, later messages wait. */
  private message(record: RecordModel): void {
    const author = text(record.author);
    const isKnown = !author || this.people.cached(author);
    const read = isKnown ? null : this.people.many([author]).catch(() => {}); // shown without a name
    this.arrivals.run(() => (read ? read.then(() => this.arrive(record)) : this.arrive(record)));
  }

  private arrive(record: RecordModel): void {
    if (this.gone.has(record.id)) return;
    const known = this.messages.get(record.id);
    if (known?.updated_at && known.updated_at > (date(record.updated) ?? "")) return;
    this.put(this.reader.fromRecord(record, known?.reactions ?? {}));
  }

  private reaction(action: string, record: RecordModel): void {
    const [messageId, emoji, user] = [text(record.message), text(record.emoji), text(record.user)];
    const known = this.messages.get(messageId);
    if (!known) {
      if (action !== "delete" || this.reading.has(messageId)) void this.refresh(messageId);
      return;
    }
    const users = new Set(known.reactions[emoji]);
    if (action === "delete") users.delete(user);
    else users.add(user);
    const { [emoji]: _, ...others } = known.reactions;
    this.put({ ...known, reactions: users.size > 0 ? { ...others, [emoji]: [...users] } : others });
  }

  /** Handlers of the room's channel, reporting to the viewers. */
  channel(needsPresence: boolean): ChannelHandlers {
    return {
      onEvent: (event) => this.event(event),
      onTyping: (typing) => this.tell((handlers) => handlers.onTyping?.(typing)),
      ...(needsPresence ? { onPresence: (users) => this.tell((handlers) => handlers.onPresence?.(users)) } : {}),
      onResync: (reason) => this.tell((handlers) => handlers.onResync?.(reason)),
      onReady: () => this.tell((handlers) => handlers.onReady?.()),
      onClosed: (why) => this.tell((handlers) => handlers.onClosed?.(why)),
      onError: (error) => this.tell((handlers) => handlers.onError?.(error)),
    };
  }
}
