// Content of a message: plain text and files, or the encrypted form.

import type { Message } from "konvert-backend-adapter/interface";
import { decryptText, encryptText, readEnvelope, type Keyring } from "@/encryption/keyring";
import { keyringForWriting, keyringOf } from "./secrecy";

/** Description of an encrypted file: the server sees only the size. */
export interface FileNote {
  name: string;
  type: string;
  size: number;
}

export interface Content {
  text: string;
  files: readonly FileNote[];
}

/** Prefix of encrypted content with files. Without files, the encrypted content is the text alone. */
const PARTS = "\u0001parts:";

export function pack({ text, files }: Content): string {
  return files.length ? PARTS + JSON.stringify({ text, files }) : text;
}

export function unpack(plain: string): Content {
  if (!plain.startsWith(PARTS)) return { text: plain, files: [] };
  try {
    return JSON.parse(plain.slice(PARTS.length)) as Content;
  } catch {
    return { text: "", files: [] };
  }
}

export const isSecret = (content: string): boolean => readEnvelope(content) !== null;

// Decrypted contents by ciphertext: a message is decrypted once for any number of drawings.
const read = new Map<string, Content>();
const MOST_READ = 20_000;

export const contentNow = (message: Pick<Message, "content">): Content | null => {
  if (!isSecret(message.content)) return { text: message.content, files: [] };
  return read.get(message.content) ?? null;
};

/** The content, or null as long as the device lacks the key. `ask`: look for new keys on the server. */
export async function readContent(
  message: Pick<Message, "content" | "room_id">,
  { ask = false } = {},
): Promise<Content | null> {
  const known = contentNow(message);
  if (known) return known;
  const envelope = readEnvelope(message.content);
  if (!envelope) return null;
  let ring: Keyring = await keyringOf(message.room_id);
  if (ask && !ring.some(({ id }) => id === envelope.key)) ring = await keyringOf(message.room_id, { ask: true });
  const plain = await decryptText(ring, message.room_id, envelope);
  if (plain === null) return null;
  if (read.size > MOST_READ) read.clear();
  const content = unpack(plain);
  read.set(message.content, content);
  return content;
}

export async function writeContent(roomId: string, content: Content, encrypted: boolean): Promise<string> {
  if (!encrypted) return content.text;
  const secret = await encryptText(await keyringForWriting(roomId), roomId, pack(content));
  read.set(secret, content);
  return secret;
}
