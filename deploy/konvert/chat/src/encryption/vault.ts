// Keys on the device: one IndexedDB database for the browser's users.

import type { Identity } from "./identity";
import type { Keyring } from "./keyring";

let opened: Promise<IDBDatabase> | undefined;

function open(): Promise<IDBDatabase> {
  opened ??= new Promise((fulfil, reject) => {
    const request = indexedDB.open("konvert-keys", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("identities");
      request.result.createObjectStore("rooms");
    };
    request.onsuccess = () => fulfil(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB is not available"));
  });
  return opened;
}

async function run<T>(
  store: string,
  mode: IDBTransactionMode,
  action: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  const database = await open();
  return new Promise((fulfil, reject) => {
    const transaction = database.transaction(store, mode);
    const request = action(transaction.objectStore(store));
    transaction.oncomplete = () => fulfil(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("IndexedDB failed"));
  });
}

export const loadIdentity = (user: string): Promise<Identity | undefined> =>
  run("identities", "readonly", (store) => store.get(user) as IDBRequest<Identity | undefined>);

export const saveIdentity = (user: string, identity: Identity): Promise<unknown> =>
  run("identities", "readwrite", (store) => store.put(identity, user));

export const loadKeyring = async (user: string, room: string): Promise<Keyring> =>
  (await run("rooms", "readonly", (store) => store.get([user, room]) as IDBRequest<Keyring | undefined>)) ?? [];

export const saveKeyring = (user: string, room: string, ring: Keyring): Promise<unknown> =>
  run("rooms", "readwrite", (store) => store.put(ring, [user, room]));
