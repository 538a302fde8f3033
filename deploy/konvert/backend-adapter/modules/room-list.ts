// The caller's list of rooms, kept up to date by events: new messages count up here, without a request; rarer changes
// read the room again.

import { toBackendError } from "../errors.js";
import type { Room, RoomUpdatesHandlers } from "../interface.js";
import type { ChannelHandlers, Realtime, RecordEvent, Unsubscribe } from "../realtime.js";
import { date, present, type Context } from "./context.js";
import { filesOf } from "./messages.js";
import type { RoomReader } from "./rooms.js";
import { text, type People } from "./people.js";

/** Maximum number of subscribed rooms, by latest activity; the gateway allows 256 subscriptions. */
const MAX_CHANNELS = 120;
const MAX_COUNT = 999;
/** Up to this number, rooms are read separately; above, in a single request. */
const FEW = 3;
/** Debouncing of reads of a room, in milliseconds. */
const REFRESH_MS = 150;
const RELOAD_RETRY_MS = 3000;

interface Watcher {
  callback: (rooms: Room[]) => void;
  handlers: RoomUpdatesHandlers;
}

export class RoomList {
  private readonly watchers = new Set<Watcher>();
  private rooms: Map<string, Room> | null = null;
  private readonly channels = new Map<string, Unsubscribe>();
  /** Rooms with a channel that is still opening; afterwards the rooms are read again to count earlier messages. */
  private readonly opening = new Set<string>();
  private opened: string[] = [];
  private readonly stale = new Map<string, ReturnType<typeof setTimeout>>();
  private ends: Unsubscribe[] = [];
  private announced = false;
  private generation = 0;
  private again: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly context: Context,
    private readonly realtime: Realtime,
    private readonly reader: RoomReader,
    private readonly people: People,
  ) {}

  watch(callback: (rooms: Room[]) => void, handlers: RoomUpdatesHandlers = {}): Unsubscribe {
    const watcher = { callback, handlers };
    this.watchers.add(watcher);
    if (this.watchers.size === 1) this.start();
    else if (this.rooms) callback(this.sorted());
    return () => {
      if (this.watchers.delete(watcher) && this.watchers.size === 0) this.stop();
    };
  }

  private start(): void {
    const me = this.context.userId;
    if (!me) return;
    const load = () => void this.load();
    this.ends = [
      this.realtime.subscribe("room-updates", {
        onEvent: ({ action, collection, record }) => {
          if (collection === "room_members") return this.refresh(text(record.room)); // PocketBase stands in
          if (action === "delete") this.remove(record.id);
          else this.refresh(record.id); // also "leave": a public room stays visible
        },
        onReady: load,
        onResync: load,
        onError: (error) => this.tellError(error),
      }),
      this.realtime.subscribe(`user:${me}`, { onEvent: (event) => this.notified(event, me), onResync: load }),
    ];
    load(); // also without a connection, or before it
  }

  private stop(): void {
    this.generation += 1;
    for (const end of [...this.ends, ...this.channels.values()]) end();
    for (const timer of this.stale.values()) clearTimeout(timer);
    clearTimeout(this.again);
    this.ends = [];
    this.channels.clear();
    this.opening.clear();
    this.opened = [];
    this.stale.clear();
    this.rooms = null;
  }

  close(): void {
    this.watchers.clear();
    this.stop();
  }

  /** Starts again after a change of the login. */
  restart(): void {
    if (this.watchers.size === 0) return;
    this.stop();
    this.start();
  }

  private async load(): Promise<void> {
    const generation = ++this.generation;
    clearTimeout(this.again);
    try {
      const rooms = await this.reader.all();
      if (generation !== this.generation) return; // a later load is under way
      this.rooms = new Map(rooms.map((room) => [room.id, room]));
      this.subscribe();
      this.announce();
    } catch (problem) {
      if (generation !== this.generation) return;
      const error = toBackendError(problem);
      this.tellError(error);
      if (error.temporary) this.again = setTimeout(() => void this.load(), RELOAD_RETRY_MS);
    }
  }

  /** Schedules a read of a room, after an event or a change by this client. */
  refresh(roomId: string): void {
    if (!roomId || this.watchers.size === 0 || this.stale.has(roomId)) return;
    this.stale.set(
      roomId,
      setTimeout(() => {
        this.stale.delete(roomId);
        void this.read(roomId);
      }, REFRESH_MS),
    );
  }

  private async read(roomId: string): Promise<void> {
    const generation = this.generation;
    try {
      const room = await this.reader.one(roomId);
      if (generation !== this.generation || !this.rooms) return;
      if (!room) return this.remove(roomId);
      this.rooms.set(roomId, room);
      this.subscribe();
      this.announce();
    } catch (problem) {
      const error = toBackendError(problem);
      this.tellError(error);
      if (error.temporary && generation === this.generation)
        this.again = setTimeout(() => void this.load(), RELOAD_RETRY_MS);
    }
  }

  private remove(roomId: string): void {
    this.channels.get(roomId)?.();
    this.channels.delete(roomId);
    this.opening.delete(roomId);
    if (this.rooms?.delete(roomId)) this.announce();
  }

  // ---- rooms' channels

  private subscribe(): void {
    const wanted = this.sorted()
      .filter(({ my_role }) => my_role)
      .slice(0, MAX_CHANNELS);
    const ids = new Set(wanted.map(({ id }) => id));
    for (const [id, end] of this.channels) {
      if (ids.has(id)) continue;
      end();
      this.channels.delete(id);
      this.opening.delete(id);
    }
    for (const id of ids) {
      if (this.channels.has(id)) {
        this.realtime.resubscribe(`room:${id}`); // the access may have come back
        continue;
      }
      this.opening.add(id);
      this.channels.set(id, this.realtime.subscribe(`room:${id}`, this.channel(id)));
    }
  }

  /** Called when the channel of a new room is open or refused; reads the opened rooms again. */
  private settled(id: string): void {
    if (!this.opening.delete(id)) return;
    this.opened.push(id);
    if (this.opening.size > 0) return;
    const opened = this.opened;
    this.opened = [];
    if (opened.length > FEW) void this.load();
    else for (const room of opened) this.refresh(room);
  }

  private channel(id: string): ChannelHandlers {
    return {
      onEvent: (event) => this.event(id, event),
      onReady: () => this.settled(id),
      onResync: () => this.refresh(id),
      onClosed: () => {
        this.settled(id);
        this.refresh(id);
      },
    };
  }

  private event(roomId: string, { action, collection, record }: RecordEvent): void {
    const room = this.rooms?.get(roomId);
    const me = this.context.userId;
    if (!room || !me) return;
    if (collection === "messages") {
      if (action === "create") void this.count(room, record, me);
      else if (action === "delete" || room.last_message?.id === record.id) this.refresh(roomId);
    } else if (collection === "room_members") {
      if (record.user === me || action !== "update") this.refresh(roomId);
    } else if (collection === "rooms" || collection === "pins") this.refresh(roomId);
  }

  /** Applies a new message to the room's last message and unread count. */
  private async count(room: Room, record: RecordEvent["record"], me: string): Promise<void> {
    const created = date(record.created) ?? "";
    const author = text(record.author);
    const isKnown = room.last_message?.id === record.id || created < (room.last_message?.created_at ?? "");
    if (isKnown) return this.refresh(room.id); // delivered again, or late
    if (author && !this.people.cached(author)) await this.people.many([author]).catch(() => {}); // shown without a name
    const current = this.rooms?.get(room.id);
    if (!current || current.last_message?.id === record.id) return;
    const unread = current.unread_count[me] ?? 0;
    this.rooms?.set(room.id, {
      ...current,
      last_activity: created,
      last_message: present({
        id: record.id,
        content: text(record.content),
        type: record.type as NonNullable<Room["last_message"]>["type"],
        sender_id: author,
        sender_username: this.people.cached(author)?.username ?? "",
        created_at: created,
        file_name: filesOf(record)[0]?.name,
      }),
      unread_count:
        author === me ? current.unread_count : { ...current.unread_count, [me]: Math.min(unread + 1, MAX_COUNT) },
    });
    this.announce();
  }

  /** Mentions and reactions come as notifications. */
  private notified({ action, collection, record }: RecordEvent, me: string): void {
    if (collection !== "notifications") return;
    const room = this.rooms?.get(text(record.room));
    const field =
      record.type === "mention" ? "unread_mentions" : record.type === "reaction" ? "unread_reactions" : null;
    if (record.type === "room_invite") this.refresh(text(record.room));
    if (!room || !field) return;
    if (action !== "create") {
      this.refresh(room.id); // read or taken back
      return;
    }
    this.rooms?.set(room.id, { ...room, [field]: { ...room[field], [me]: (room[field][me] ?? 0) + 1 } });
    this.announce();
  }

  // ---- reporting

  private sorted(): Room[] {
    return [...(this.rooms?.values() ?? [])].sort((a, b) => b.last_activity.localeCompare(a.last_activity));
  }

  /** Reports changes of the same turn in a single call. */
  private announce(): void {
    if (this.announced) return;
    this.announced = true;
    setTimeout(() => {
      this.announced = false;
      if (!this.rooms) return;
      const rooms = this.sorted();
      for (const { callback } of [...this.watchers]) callback(rooms);
    }, 0);
  }

  private tellError(error: ReturnType<typeof toBackendError>): void {
    for (const { handlers } of [...this.watchers]) handlers.onError?.(error);
  }
}
