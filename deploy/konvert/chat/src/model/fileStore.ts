// Files on the device until the server has stored their message: one IndexedDB database for the browser's users, so that
// a reload loses neither files that were chosen nor messages that wait to be sent.

import type { Message } from "konvert-backend-adapter/interface";

/** A message with files that waits to be sent. */
export interface HeldMessage {
  text: string;
  replyTo?: string;
  mentions?: string[];
  files: readonly File[];
  message: Message;
}

type Store = "chosen" | "waiting";

let opened: Promise<IDBDatabase> | undefined;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise((fulfil, reject) => {
    const request = indexedDB.open("konvert-files", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("chosen");
      request.result.createObjectStore("waiting");
    };
    request.onsuccess = () => fulfil(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB is not available"));
  });
  return opened;
}

/** Runs requests on a store. A browser without storage, or with a full one, keeps the files in the page only. */
async function run<T>(
  store: Store,
  mode: IDBTransactionMode,
  action: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T | undefined> {
  try {
    const database = await open();
    return await new Promise<T>((fulfil, reject) => {
      const transaction = database.transaction(store, mode);
      const request = action(transaction.objectStore(store));
      transaction.oncomplete = () => fulfil(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("IndexedDB failed"));
    });
  } catch {
    return undefined;
  }
}

/** All keys of a user: [user, room or message]. */
const ofUser = (user: string) => IDBKeyRange.bound([user, ""], [user, "\uffff"]);

export const keepHeld = (user: string, held: HeldMessage): Promise<unknown> =>
  run("waiting", "readwrite", (store) => store.put(held, [user, held.message.id]));
export const dropHeld = (user: string, id: string): Promise<unknown> =>
  run("waiting", "readwrite", (store) => store.delete([user, id]));
export const loadHeld = async (user: string): Promise<HeldMessage[]> =>
  (await run("waiting", "readonly", (store) => store.getAll(ofUser(user)) as IDBRequest<HeldMessage[]>)) ?? [];

export const keepChosen = (user: string, room: string, files: readonly File[]): Promise<unknown> =>
  files.length
    ? run("chosen", "readwrite", (store) => store.put([...files], [user, room]))
    : run("chosen", "readwrite", (store) => store.delete([user, room]));
export const loadChosen = async (user: string, room: string): Promise<File[]> =>
  (await run("chosen", "readonly", (store) => store.get([user, room]) as IDBRequest<File[] | undefined>)) ?? [];

/** After a log-out. */
export async function forgetFiles(user: string): Promise<void> {
  await Promise.all(
    (["chosen", "waiting"] as const).map((name) => run(name, "readwrite", (store) => store.delete(ofUser(user)))),
  );
}
