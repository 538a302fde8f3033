// A user's key pair and its public form: the text in the `public_key` field, which every user may read. The text also
// holds a backup of the private key, sealed with the recovery code. With 120 random bits in the code, the backup may be
// public.

import {
  fromBase64,
  newKeyPair,
  newRecoveryCode,
  newSalt,
  recoveryKey,
  sealText,
  toBase64,
  unsealText,
} from "./crypto";
import type { KeyPair, Sealed } from "./crypto";

export interface Identity extends KeyPair {
  /** Kept on the device, for the settings. */
  recoveryCode: string;
}

interface Published {
  version: "p1";
  key: string;
  backup: Sealed & { salt: string };
}

const BOUND = "konvert identity";

/** A new key pair. A demo user's code is derived from the public demo password, which unlocks every device. */
export async function newIdentity(demoCode?: string): Promise<Identity> {
  return { ...(await newKeyPair()), recoveryCode: demoCode ?? newRecoveryCode() };
}

export async function publish(identity: Identity): Promise<string> {
  const salt = newSalt();
  const sealed = await sealText(await recoveryKey(identity.recoveryCode, salt), identity.privateKey, BOUND);
  const text: Published = { version: "p1", key: identity.publicKey, backup: { ...sealed, salt: toBase64(salt) } };
  return JSON.stringify(text);
}

function read(text: string | undefined): Published | null {
  try {
    const value = JSON.parse(text ?? "") as Published;
    return value.version === "p1" && typeof value.key === "string" ? value : null;
  } catch {
    return null; // empty, or the key of another kind of client
  }
}

/** The public key in a `public_key` field, or null if the user has not set up encryption. */
export const publicKeyOf = (text: string | undefined): string | null => read(text)?.key ?? null;

/** The identity whose backup is in a `public_key` field, or null if the code does not fit. */
export async function restore(text: string | undefined, code: string): Promise<Identity | null> {
  const published = read(text);
  if (!published) return null;
  try {
    const { salt, ...sealed } = published.backup;
    const privateKey = await unsealText(await recoveryKey(code, fromBase64(salt)), sealed, BOUND);
    return { publicKey: published.key, privateKey, recoveryCode: code.trim().toUpperCase() };
  } catch {
    return null;
  }
}
