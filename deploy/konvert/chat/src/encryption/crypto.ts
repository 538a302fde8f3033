// Primitives of the end-to-end encryption, on Web Crypto: ECDH P-256, HKDF, AES-GCM and PBKDF2.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Web Crypto exists only on HTTPS pages and on this computer (localhost). */
export const cryptoAvailable = (): boolean => globalThis.isSecureContext && crypto.subtle !== undefined;

export function toBase64(bytes: ArrayBuffer | Uint8Array): string {
  let text = "";
  for (const byte of new Uint8Array(bytes)) text += String.fromCharCode(byte);
  return btoa(text);
}

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const random = (length: number): Uint8Array<ArrayBuffer> => crypto.getRandomValues(new Uint8Array(length));

/** Ciphertext with its nonce, both in base64. */
export interface Sealed {
  iv: string;
  data: string;
}

export async function seal(key: CryptoKey, plain: BufferSource, bound = ""): Promise<Sealed> {
  const iv = random(12);
  const data = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: encoder.encode(bound) }, key, plain);
  return { iv: toBase64(iv), data: toBase64(data) };
}

/** Rejects if the key does not fit, or the ciphertext was changed or belongs to another `bound`. */
export function unseal(key: CryptoKey, { iv, data }: Sealed, bound = ""): Promise<ArrayBuffer> {
  const parameters = { name: "AES-GCM", iv: fromBase64(iv), additionalData: encoder.encode(bound) };
  return crypto.subtle.decrypt(parameters, key, fromBase64(data));
}

export const sealText = (key: CryptoKey, text: string, bound: string): Promise<Sealed> =>
  seal(key, encoder.encode(text), bound);
export const unsealText = async (key: CryptoKey, sealed: Sealed, bound: string): Promise<string> =>
  decoder.decode(await unseal(key, sealed, bound));

/** 256 random bits in base64, and the key's id: the first 12 characters of its SHA-256. */
export async function newRoomKey(): Promise<{ id: string; raw: string }> {
  const raw = random(32);
  return { id: await digest(raw), raw: toBase64(raw) };
}

export async function digest(bytes: BufferSource): Promise<string> {
  return toBase64(await crypto.subtle.digest("SHA-256", bytes)).slice(0, 12);
}

export const importAes = (raw: string): Promise<CryptoKey> =>
  crypto.subtle.importKey("raw", fromBase64(raw), "AES-GCM", false, ["encrypt", "decrypt"]);

const CURVE = { name: "ECDH", namedCurve: "P-256" };

/** A user's key pair as text: the public key in raw form, the private key in PKCS #8. */
export interface KeyPair {
  publicKey: string;
  privateKey: string;
}

export async function newKeyPair(): Promise<KeyPair> {
  const pair = await crypto.subtle.generateKey(CURVE, true, ["deriveBits"]);
  const [publicKey, privateKey] = await Promise.all([
    crypto.subtle.exportKey("raw", pair.publicKey),
    crypto.subtle.exportKey("pkcs8", pair.privateKey),
  ]);
  return { publicKey: toBase64(publicKey), privateKey: toBase64(privateKey) };
}

async function shared(privateKey: CryptoKey, publicKey: string): Promise<CryptoKey> {
  const other = await crypto.subtle.importKey("raw", fromBase64(publicKey), CURVE, false, []);
  const bits = await crypto.subtle.deriveBits({ name: "ECDH", public: other }, privateKey, 256);
  const base = await crypto.subtle.importKey("raw", bits, "HKDF", false, ["deriveKey"]);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: encoder.encode("konvert room keys") };
  return crypto.subtle.deriveKey(hkdf, base, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

/** A text for the owner of a public key: sealed with a key agreed between that key and a new, single-use key. */
export async function sealFor(publicKey: string, text: string, bound: string): Promise<string> {
  const once = await crypto.subtle.generateKey(CURVE, true, ["deriveBits"]);
  const from = toBase64(await crypto.subtle.exportKey("raw", once.publicKey));
  return JSON.stringify({
    version: "k1",
    from,
    ...(await sealText(await shared(once.privateKey, publicKey), text, bound)),
  });
}

export async function openSealed(pair: KeyPair, text: string, bound: string): Promise<string> {
  const { from, iv, data } = JSON.parse(text) as Sealed & { from: string };
  const own = await crypto.subtle.importKey("pkcs8", fromBase64(pair.privateKey), CURVE, false, ["deriveBits"]);
  return unsealText(await shared(own, from), { iv, data }, bound);
}

// Crockford's base 32: no letters that look like digits.
const LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A recovery code of 120 random bits: six groups of four letters and digits. */
export function newRecoveryCode(): string {
  const letters = [...random(24)].map((byte) => LETTERS[byte % 32]).join("");
  return (letters.match(/.{4}/g) ?? []).join("-");
}

/** The key of a recovery code. Case, spaces and dashes do not matter. */
export async function recoveryKey(code: string, salt: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  const plain = code
    .toUpperCase()
    .replace(/[^0-9A-Z]/g, "")
    .replace(/O/g, "0")
    .replace(/[IL]/g, "1");
  const base = await crypto.subtle.importKey("raw", encoder.encode(plain), "PBKDF2", false, ["deriveKey"]);
  const pbkdf2 = { name: "PBKDF2", hash: "SHA-256", salt, iterations: 210_000 };
  return crypto.subtle.deriveKey(pbkdf2, base, { name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
}

export const newSalt = (): Uint8Array<ArrayBuffer> => random(16);
