// End-to-end encryption of private and direct rooms: the user's identity, and the keyrings of the rooms.
//
// The server stores a room's keyring once for every member, sealed for the member's public key. Members with the keyring
// share the keyring with members without: at an invitation, and when a member has a new public key.

import { BackendError } from "konvert-backend-adapter/errors";
import type { Room, User } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { runtime } from "@/app/runtime";
import { cryptoAvailable, digest, fromBase64, openSealed, sealFor } from "@/encryption/crypto";
import { newIdentity, publicKeyOf, publish, restore, type Identity } from "@/encryption/identity";
import { merge, sameKeys, withNewKey, type Keyring } from "@/encryption/keyring";
import { loadIdentity, loadKeyring, saveIdentity, saveKeyring } from "@/encryption/vault";
import { backend } from "./backend";
import { rememberPeople } from "./people";
import { retried } from "./retried";

/**
 * "off": switched off. "insecure": the browser has no cryptography on this page. "opening": the user's key is being
 * loaded or made, and whatever needs the key waits. "locked": the user has a key, but not on this device. "on": ready.
 */
export type SecrecyState = "off" | "insecure" | "opening" | "locked" | "on";

interface Secrecy {
  state: SecrecyState;
  user: User | null;
  identity: Identity | null;
  keyrings: Record<string, Keyring>;
}

const CLOSED: Secrecy = { state: "off", user: null, identity: null, keyrings: {} };
export const useSecrecy = create<Secrecy>(() => CLOSED);

export const isEncrypted = (room: Pick<Room, "type">): boolean =>
  room.type !== "public" && ["opening", "on", "locked"].includes(useSecrecy.getState().state);

/** Content of a sealed keyring. `shared`: fingerprints of the public keys, by member, for which the keyring was sealed. */
interface Sealed {
  keys: Keyring;
  shared?: Record<string, string>;
}

const MOST_KEYS = 40;
const MOST_SHARED = 60;
/** Per room: fingerprints of the public keys by member, with the newest room key at the time of sharing. */
const shared = new Map<string, Record<string, string>>();
const changed = new Set<(roomId: string) => void>();

/** Calls back when a room has new keys: locked messages may now be readable. */
export function onKeys(callback: (roomId: string) => void): () => void {
  changed.add(callback);
  return () => changed.delete(callback);
}

/** Fulfilled when the opening is over, whatever its result. */
let opened: Promise<void> = Promise.resolve();

/** Loads or makes the user's key, while the chat is already shown. */
export function openSecrecy(user: User): void {
  if (!runtime().backend.features.e2ee) return;
  const isAvailable = cryptoAvailable();
  useSecrecy.setState({ ...CLOSED, state: isAvailable ? "opening" : "insecure", user });
  if (!isAvailable) return;
  // One tab at a time: two tabs must not make two key pairs for a new user.
  const open = () => navigator.locks.request("konvert-identity", () => openIdentity(user));
  opened = retried(open, () => isFor(user)).catch((error: unknown) => {
    if (!(error instanceof BackendError)) console.error(error); // for example a browser without IndexedDB
    if (isFor(user)) useSecrecy.setState({ ...CLOSED, state: "locked", user });
  });
}

/** Whether the user is still logged in: a log-out may come during the opening. */
const isFor = (user: User): boolean => useSecrecy.getState().user?.id === user.id;

async function openIdentity(known: User): Promise<void> {
  const user = known.public_key
    ? known
    : (
        await backend()
          .getMe()
          .catch(() => ({ user: known }))
      ).user;
  const stored = await loadIdentity(user.id).catch(() => undefined);
  const published = publicKeyOf(user.public_key);
  if (stored && (!published || stored.publicKey === published)) {
    if (!published) await announce(user, stored);
    return unlocked(user, stored);
  }
  const demo = runtime().users.find(({ id }) => id === user.id);
  if (!published) return adopt(user, await newIdentity(demo?.password.toUpperCase()));
  const restored = demo ? await restore(user.public_key, demo.password) : null;
  if (restored) {
    await saveIdentity(user.id, restored);
    return unlocked(user, restored);
  }
  if (isFor(user)) useSecrecy.setState({ ...CLOSED, state: "locked", user });
}

async function announce(user: User, identity: Identity): Promise<void> {
  const published = await publish(identity);
  if (isFor(user)) await backend().updatePublicKey(published);
}

async function adopt(user: User, identity: Identity): Promise<void> {
  await saveIdentity(user.id, identity);
  await announce(user, identity);
  await unlocked(user, identity);
}

async function unlocked(user: User, identity: Identity): Promise<void> {
  if (!isFor(user)) return;
  useSecrecy.setState({ state: "on", user, identity });
  await Promise.all(Object.entries(user.room_keys ?? {}).map(([room, sealed]) => take(room, sealed)));
}

/** Enters the recovery code on a new device; false if the code does not fit. */
export async function unlock(code: string): Promise<boolean> {
  const { user } = useSecrecy.getState();
  if (!user) return false;
  const fresh = (await backend().getMe()).user;
  const identity = await restore(fresh.public_key, code);
  if (!identity) return false;
  await saveIdentity(user.id, identity);
  await unlocked(fresh, identity);
  for (const callback of changed) callback("");
  return true;
}

/** Makes a new key pair, for a user who has lost the recovery code. */
export async function resetIdentity(): Promise<void> {
  const { user } = useSecrecy.getState();
  if (user) await adopt({ ...user, room_keys: {} }, await newIdentity());
}

export function closeSecrecy(): void {
  shared.clear();
  useSecrecy.setState(CLOSED);
}

/** Opens a keyring from the server; returns whether the room has gained keys. */
export async function takeSealed(roomId: string, sealed: string): Promise<boolean> {
  await opened;
  return take(roomId, sealed);
}

async function take(roomId: string, sealed: string): Promise<boolean> {
  const { identity } = useSecrecy.getState();
  if (!identity) return false;
  try {
    const { keys, shared: given } = JSON.parse(await openSealed(identity, sealed, roomId)) as Sealed;
    shared.set(roomId, { ...shared.get(roomId), ...given });
    return await keep(roomId, keys);
  } catch {
    return false; // sealed for an earlier key of the user, or by a different client
  }
}

async function keep(roomId: string, keys: Keyring): Promise<boolean> {
  const { user, keyrings } = useSecrecy.getState();
  if (!user) return false;
  const known = keyrings[roomId] ?? (await loadKeyring(user.id, roomId).catch(() => []));
  const all = merge(known, keys).slice(0, MOST_KEYS);
  useSecrecy.setState((state) => ({ keyrings: { ...state.keyrings, [roomId]: all } }));
  if (sameKeys(known, all) && keyrings[roomId]) return false;
  await saveKeyring(user.id, roomId, all).catch(() => undefined);
  for (const callback of changed) callback(roomId);
  return true;
}

/** The keys of a room, from memory, the device or the server. */
export async function keyringOf(roomId: string, { ask = false } = {}): Promise<Keyring> {
  await opened;
  const { keyrings, identity } = useSecrecy.getState();
  if (!keyrings[roomId]) await keep(roomId, []);
  if (identity && (ask || !useSecrecy.getState().keyrings[roomId]?.length)) {
    const { keys } = await backend()
      .getRoomKeys(roomId)
      .catch(() => ({ keys: [] }));
    for (const { encryptedKey } of keys) await takeSealed(roomId, encryptedKey);
  }
  return useSecrecy.getState().keyrings[roomId] ?? [];
}

/** The keyring for writing: a room without a key gets a first key. */
export async function keyringForWriting(roomId: string): Promise<Keyring> {
  const known = await keyringOf(roomId);
  if (known.length) return known;
  await keep(roomId, await withNewKey([]));
  await shareKeys(roomId);
  return useSecrecy.getState().keyrings[roomId] ?? [];
}

/** Makes a new key for future messages, after the removal of a member, and shares the key. Earlier messages keep their keys. */
export async function renewKeys(roomId: string): Promise<void> {
  const known = await keyringOf(roomId);
  if (!known.length) return;
  await keep(roomId, await withNewKey(known));
  await shareKeys(roomId);
}

const sharing = new Map<string, Promise<void>>();

/** Gives the keyring to members with a public key and without the keyring. Calls for the same room run in turn. */
export function shareKeys(roomId: string): Promise<void> {
  const next = (sharing.get(roomId) ?? Promise.resolve()).then(() => give(roomId)).catch(() => undefined);
  sharing.set(roomId, next);
  return next;
}

async function give(roomId: string): Promise<void> {
  const keys = await keyringOf(roomId);
  const { user } = useSecrecy.getState();
  if (!keys.length || !user) return;
  const { members } = await backend().getMembers(roomId);
  rememberPeople(members.map((member) => member.user));
  const given = { ...shared.get(roomId) };
  const missing: { id: string; publicKey: string }[] = [];
  for (const member of members) {
    const publicKey = publicKeyOf(member.user.public_key);
    if (!publicKey) continue;
    const mark = `${await digest(fromBase64(publicKey))}${keys[0]?.id}`;
    if (given[member.user.id] === mark) continue;
    given[member.user.id] = mark;
    missing.push({ id: member.user.id, publicKey });
  }
  if (!missing.length) return;
  const text: Sealed = { keys, ...(members.length <= MOST_SHARED && { shared: given }) };
  const sealed = await Promise.all(
    missing.map(async ({ id, publicKey }) => [id, await sealFor(publicKey, JSON.stringify(text), roomId)] as const),
  );
  await backend().saveRoomKeys(roomId, Object.fromEntries(sealed));
  shared.set(roomId, given);
}
