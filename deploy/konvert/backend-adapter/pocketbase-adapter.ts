// The adapter for PocketBase with the chat's migrations and hooks, and the gateway for realtime.

import PocketBase from "pocketbase";
import { getBackendConfig } from "./config.js";
import type { BackendConfig, IBackendAdapter, Message } from "./interface.js";
import { accountModule } from "./modules/account.js";
import { authModule } from "./modules/auth.js";
import { Context, type KeyValueStorage } from "./modules/context.js";
import { encryptionModule, storageModule } from "./modules/files.js";
import { MessageReader, messagesModule, storeDraft } from "./modules/messages.js";
import { Outbox } from "./modules/outbox.js";
import { People } from "./modules/people.js";
import { RoomViews, realtimeModule, topicsOf } from "./modules/realtime.js";
import { RoomList } from "./modules/room-list.js";
import { RoomReader, directMessagesModule, roomsModule } from "./modules/rooms.js";
import { achievementsModule, friendsModule, notificationsModule, pollsModule } from "./modules/social.js";
import { usersModule } from "./modules/users.js";
import { createRealtime } from "./realtime.js";

export interface PocketBaseAdapterOptions {
  /** A client to share; otherwise one is made for `config.url`. */
  pocketbase?: PocketBase;
  /** Where pending messages are kept; localStorage unless given, memory where there is none. */
  storage?: KeyValueStorage | null;
  /** Language of achievements; the browser's unless given. */
  language?: "en" | "ru";
  /** Constructor of WebSockets, where the platform has none. */
  websocket?: unknown;
  /** Milliseconds without the gateway before PocketBase's own realtime stands in. */
  fallbackAfter?: number;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the constructor assigns the methods of all modules
class PocketBaseAdapter {
  readonly pocketbase: PocketBase;
  private readonly ends: (() => void)[];

  constructor(config: BackendConfig = getBackendConfig(), options: PocketBaseAdapterOptions = {}) {
    const pocketbase = options.pocketbase ?? new PocketBase(config.url);
    this.pocketbase = pocketbase;
    const realtime = config.features.realtime
      ? createRealtime({
          pocketbase,
          ...(config.gatewayUrl ? { url: config.gatewayUrl } : {}),
          transport: config.gatewayUrl ? config.transport : "pocketbase",
          fallback: (channel) => topicsOf(channel, pocketbase.authStore.record?.id ?? ""),
          ...(options.fallbackAfter === undefined ? {} : { fallbackAfter: options.fallbackAfter }),
          ...(options.websocket ? { websocket: options.websocket } : {}),
        })
      : null;
    const context = new Context(pocketbase, config, realtime, options.language ?? browserLanguage());
    const people = new People(context);
    const reader = new MessageReader(context, people);
    const rooms = new RoomReader(context, people);
    const views = new RoomViews();
    const list = realtime ? new RoomList(context, realtime, rooms, people) : null;
    const changed = (roomId: string) => list?.refresh(roomId);
    const outbox = new Outbox<Message>({
      user: () => context.userId,
      store: (draft) => storeDraft(context, reader, draft),
      onChange: (draft) => views.changed(reader.fromDraft(draft)),
      onStored: (message) => views.changed(message),
      onDiscard: (draft) => views.deleted(draft.room, draft.id),
      onElsewhere: (draft) => views.refresh(draft.room, draft.id),
      storage: options.storage === undefined ? browserStorage() : options.storage,
    });

    const messages = messagesModule(context, reader, outbox, views);
    Object.assign(
      this,
      authModule(context, people, outbox),
      accountModule(context, outbox),
      usersModule(context, people),
      roomsModule(context, people, rooms, changed),
      messages,
      directMessagesModule(context, people, rooms, messages, changed),
      friendsModule(context, people),
      encryptionModule(context),
      achievementsModule(context),
      pollsModule(context),
      notificationsModule(context),
      realtimeModule({ context, people, reader, outbox, views, list }),
      storageModule(context),
    );

    let user = context.userId;
    this.ends = [
      pocketbase.authStore.onChange(() => {
        if (context.userId === user) return;
        user = context.userId;
        people.clear();
        list?.restart();
        outbox.flush();
      }),
      realtime?.onState(({ state, error }) => {
        if (state === "connected") outbox.flush();
        // The gateway reports the end of the login: remove the stored login, so that the chat shows the login form.
        if (state === "closed" && (error?.code === "unauthorized" || error?.code === "banned")) context.forget();
      }) ?? (() => {}),
      () => outbox.close(),
      () => list?.close(),
      () => realtime?.close(),
    ];
    if (user) outbox.flush(); // messages of an earlier visit
  }

  close(): void {
    for (const end of this.ends.splice(0)) end();
  }
}

interface PocketBaseAdapter extends IBackendAdapter {}

export default PocketBaseAdapter;
export { PocketBaseAdapter };

function browserStorage(): KeyValueStorage | null {
  try {
    return (globalThis as { localStorage?: KeyValueStorage }).localStorage ?? null;
  } catch {
    return null; // a page without permission to store
  }
}

function browserLanguage(): "en" | "ru" {
  const language = (globalThis as { navigator?: { language?: string } }).navigator?.language ?? "en";
  return language.toLowerCase().startsWith("ru") ? "ru" : "en";
}
