// Adapter for the chat's old backend, a key-value edge function on Supabase. Missing functions reject with an
// UnsupportedError; realtime is polling, with the periods of the old chat.

import { getBackendConfig } from "./config.js";
import type { BackendConfig, IBackendAdapter, Message } from "./interface.js";
import { present, type KeyValueStorage } from "./modules/context.js";
import { Outbox, type Draft } from "./modules/outbox.js";
import { Client } from "./supabase/client.js";
import { MessageReader, messagesModule, type Sent } from "./supabase/messages.js";
import { People, accountModule, authModule, usersModule } from "./supabase/people.js";
import { RoomViews, realtimeModule } from "./supabase/realtime.js";
import type { AchievementDefinition } from "./supabase/records.js";
import { RoomReader, directMessagesModule, roomsModule } from "./supabase/rooms.js";
import {
  achievementsModule,
  encryptionModule,
  friendsModule,
  notificationsModule,
  pollsModule,
  storageModule,
  upload,
} from "./supabase/social.js";
import { Sender } from "./supabase/sender.js";
import { PERIODS, Watch, type PollingPeriods } from "./supabase/watch.js";

export type { AchievementDefinition } from "./supabase/records.js";
export type { PollingPeriods } from "./supabase/watch.js";

export interface SupabaseAdapterOptions {
  /** Where the login and pending messages are kept; localStorage unless given, else memory. */
  storage?: KeyValueStorage | null;
  /** Names and rarities of achievements, known to the old frontend only. Default: ids as names. */
  achievements?: readonly AchievementDefinition[];
  /** Milliseconds between polls; the old chat's unless given. */
  periods?: Partial<PollingPeriods>;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: the constructor assigns the methods of all modules
class SupabaseAdapter {
  private readonly ends: (() => void)[];

  constructor(config: BackendConfig = getBackendConfig(), options: SupabaseAdapterOptions = {}) {
    const kept = options.storage === undefined ? browserStorage() : options.storage;
    const storage = kept ?? memoryStorage();
    const client = new Client(config, storage, config.functionName);
    const people = new People(client);
    const rooms = new RoomReader(client, people, storage);
    const reader = new MessageReader(client, rooms);
    const sender = new Sender(client, reader);
    const fromDraft = (draft: Draft) => pendingMessage(draft, client.userId ?? "");
    const watch = new Watch(client, { ...PERIODS, ...options.periods }, () => outbox.flush());
    const views = new RoomViews(client, reader, rooms, watch);
    const outbox = new Outbox<Sent>({
      user: () => client.userId,
      store: async (draft) => ({ draft, message: await sender.store(draft) }),
      onChange: (draft) => views.changed(fromDraft(draft)),
      onStored: ({ draft, message }) => views.replaced(draft.room, draft.id, message),
      onDiscard: (draft) => views.deleted(draft.room, draft.id),
      onElsewhere: (draft) => views.deleted(draft.room, draft.id), // the next poll brings the message, if it was sent
      storage,
    });
    const messages = messagesModule({
      ...{ client, reader, outbox, sender, fromDraft },
      stores: views,
      upload: (file, call) => upload(client, file, call),
    });
    Object.assign(
      this,
      authModule(client, outbox),
      accountModule(client),
      usersModule(client, people),
      roomsModule(client, people, rooms, views),
      messages,
      directMessagesModule(client, rooms, messages, views),
      friendsModule(client, people, storage),
      encryptionModule(client),
      achievementsModule(client, options.achievements ?? []),
      pollsModule(client, reader, (roomId) => views.changed(roomId)),
      notificationsModule(client),
      realtimeModule({ client, people, outbox, views, watch, fromDraft }),
      storageModule(client),
    );
    this.ends = [
      client.onAuthChange(() => {
        people.clear();
        reader.clear();
        views.reset();
        outbox.flush();
      }),
      () => outbox.close(),
      () => watch.close(),
      () => client.close(),
    ];
    if (client.userId) outbox.flush(); // messages of an earlier visit
  }

  close(): void {
    for (const end of this.ends.splice(0)) end();
  }
}

interface SupabaseAdapter extends IBackendAdapter {}

export default SupabaseAdapter;
export { SupabaseAdapter };

function pendingMessage(draft: Draft, me: string): Message {
  return present({
    id: draft.id,
    room_id: draft.room,
    sender_id: me,
    sender_username: "",
    content: draft.content,
    type: draft.type,
    reply_to: draft.replyTo,
    created_at: draft.created,
    reactions: {},
    state: draft.failed ? ("failed" as const) : ("pending" as const),
    error: draft.failed,
  });
}

function browserStorage(): KeyValueStorage | null {
  try {
    return (globalThis as { localStorage?: KeyValueStorage }).localStorage ?? null;
  } catch {
    return null; // a page without permission to store
  }
}

function memoryStorage(): KeyValueStorage {
  const values = new Map<string, string>();
  return {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => void values.set(key, value),
    removeItem: (key) => void values.delete(key),
  };
}
