// The keys of a room. A keyring holds the present key, which comes first and encrypts new messages, and all earlier
// keys, for earlier messages.

import { importAes, newRoomKey, sealText, unsealText } from "./crypto";

export interface RoomKey {
  id: string;
  raw: string;
  /** Number of the key in the room: a new key has the next number. */
  number: number;
}

export type Keyring = readonly RoomKey[];

const imported = new Map<string, Promise<CryptoKey>>();

function use(key: RoomKey): Promise<CryptoKey> {
  let found = imported.get(key.id);
  if (!found) imported.set(key.id, (found = importAes(key.raw)));
  return found;
}

export async function withNewKey(ring: Keyring): Promise<Keyring> {
  return merge(ring, [{ ...(await newRoomKey()), number: (ring[0]?.number ?? 0) + 1 }]);
}

/**
 * The keys of both rings, the newest first. Two members may make a room's first key at the same moment: both keys stay,
 * and every member encrypts with the key of the smaller id.
 */
export function merge(one: Keyring, other: Keyring): Keyring {
  const keys = new Map([...one, ...other].map((key) => [key.id, key]));
  return [...keys.values()].sort((a, b) => b.number - a.number || (a.id < b.id ? -1 : 1));
}

export const sameKeys = (one: Keyring, other: Keyring): boolean =>
  one.length === other.length && one.every((key, index) => key.id === other[index]?.id);

/** Encrypted content of a message, in the format of the earlier clients, with the id of the key. */
interface Envelope {
  version: "v1";
  ciphertext: string;
  iv: string;
  key?: string;
}

export function readEnvelope(content: string): Envelope | null {
  if (!content.startsWith('{"version":"v1"')) return null;
  try {
    const value = JSON.parse(content) as Envelope;
    return typeof value.ciphertext === "string" && typeof value.iv === "string" ? value : null;
  } catch {
    return null; // a text that only looks like an envelope
  }
}

export async function encryptText(ring: Keyring, roomId: string, text: string): Promise<string> {
  const key = ring[0];
  if (!key) throw new Error("the room has no key");
  const { iv, data } = await sealText(await use(key), text, roomId);
  const envelope: Envelope = { version: "v1", ciphertext: data, iv, key: key.id };
  return JSON.stringify(envelope);
}

/** The text, or null if the ring has no key for it. */
export async function decryptText(ring: Keyring, roomId: string, envelope: Envelope): Promise<string | null> {
  const key = ring.find((candidate) => candidate.id === envelope.key);
  if (!key) return null;
  try {
    return await unsealText(await use(key), { iv: envelope.iv, data: envelope.ciphertext }, roomId);
  } catch {
    return null; // changed on the way, or moved here from another room
  }
}
