// Encrypted files: the nonce, then the ciphertext, under the room's newest key. The server sees neither name nor type.

import { importAes, seal, toBase64, fromBase64, unseal } from "@/encryption/crypto";
import { readEnvelope } from "@/encryption/keyring";
import { backend } from "./backend";
import { keyringForWriting, keyringOf } from "./secrecy";
import type { ShownFile, ShownMessage } from "./timeline";

const NONCE = 12;

export async function sealFiles(roomId: string, files: readonly File[]): Promise<File[]> {
  if (!files.length) return [];
  const [key] = await keyringForWriting(roomId);
  if (!key) throw new Error("the room has no key");
  const imported = await importAes(key.raw);
  return Promise.all(
    files.map(async (file) => {
      const { iv, data } = await seal(imported, await file.arrayBuffer(), roomId);
      return new File([fromBase64(iv), fromBase64(data)], "encrypted.bin", { type: "application/octet-stream" });
    }),
  );
}

const opened = new Map<string, Promise<string>>();

/** An address of the file's content, for an image or a download. */
export function addressOf(file: ShownFile, message: ShownMessage): Promise<string> {
  if (message.state) return Promise.resolve(file.url); // still in this page
  let address = opened.get(file.key);
  if (!address) {
    address = load(file, message);
    opened.set(file.key, address);
    // Tokens of plain files end after minutes; decrypted files stay.
    address.then(
      () => !file.note && setTimeout(() => opened.delete(file.key), 90_000),
      () => opened.delete(file.key),
    );
  }
  return address;
}

/** An address for saving the file under its own name; the server knows the stored name only. */
export async function downloadOf(file: ShownFile, message: ShownMessage): Promise<string> {
  const address = await addressOf(file, message);
  if (file.note || message.state) return address;
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(`the file cannot be loaded: ${reply.status}`);
  const copy = URL.createObjectURL(await reply.blob());
  setTimeout(URL.revokeObjectURL, 60_000, copy);
  return copy;
}

/** The file itself, decrypted, to send it once more. */
export async function fileOf(file: ShownFile, message: ShownMessage): Promise<File> {
  const content = await (await fetch(await addressOf(file, message))).blob();
  return new File([content], file.name, { type: file.note?.type ?? content.type });
}

async function load(file: ShownFile, message: ShownMessage): Promise<string> {
  const { url } = await backend().getAttachmentUrl({ name: file.name, url: file.url });
  if (!file.note) return url;
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`the file cannot be loaded: ${reply.status}`);
  const bytes = new Uint8Array(await reply.arrayBuffer());
  const id = readEnvelope(message.content)?.key;
  const key = (await keyringOf(message.room_id)).find((candidate) => candidate.id === id);
  if (!key) throw new Error("the key of the file is missing");
  const sealed = { iv: toBase64(bytes.subarray(0, NONCE)), data: toBase64(bytes.subarray(NONCE)) };
  const plain = await unseal(await importAes(key.raw), sealed, message.room_id);
  return URL.createObjectURL(new Blob([plain], { type: file.note.type }));
}
