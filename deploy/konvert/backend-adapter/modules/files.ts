// Stored files, and keys for end-to-end encryption.

import type { RecordModel } from "pocketbase";
import type { CallOptions, EncryptionModule, StorageModule } from "../interface.js";
import { NotFoundError } from "../errors.js";
import { pair } from "./auth.js";
import type { Context } from "./context.js";
import { text } from "./people.js";

export function storageModule(context: Context): StorageModule {
  const files = () => context.collection("files");
  const urlOf = (record: RecordModel) => context.pocketbase.files.getURL(record, text(record.file));

  /** The caller's own file at a path. */
  async function find(path: string, options?: CallOptions): Promise<RecordModel | undefined> {
    const filter = pair("owner", context.me(), "path", path);
    const { items } = await context.call(options, (request) =>
      files().getList(1, 1, { ...request, filter, skipTotal: true }),
    );
    return items[0];
  }

  async function existing(path: string, options?: CallOptions): Promise<RecordModel> {
    const found = await find(path, options);
    if (!found) throw new NotFoundError(`No such file among the caller's: ${path}`);
    return found;
  }

  return {
    async uploadFile(file, path, options) {
      const old = await find(path, options);
      const target = { collection: "files", ...(old ? { id: old.id } : {}) };
      const record = await context.write(options, target, (request) =>
        old ? files().update(old.id, { file }, request) : files().create({ owner: context.me(), path, file }, request),
      );
      return { url: urlOf(record), path };
    },
    async deleteFile(path, options) {
      const { id } = await existing(path, options);
      await context.write(options, { collection: "files", id }, (request) => files().delete(id, request));
    },
    getFileUrl: async (path, options) => ({ url: urlOf(await existing(path, options)) }),
  };
}

export function encryptionModule(context: Context): EncryptionModule {
  async function keysOf(roomId: string, most: number, options?: CallOptions) {
    const filter = pair("room", roomId, "user", context.me());
    const { items } = await context.call(options, (request) =>
      context.collection("room_keys").getList(1, most, { ...request, filter, sort: "-key_version", skipTotal: true }),
    );
    if (items.length === 0) {
      // No key, or no access: the room tells.
      await context.call(options, (request) =>
        context.collection("rooms").getOne(roomId, { ...request, fields: "id" }),
      );
    }
    return items.map(({ encrypted_key, key_version }) => ({
      encryptedKey: text(encrypted_key),
      version: Number(key_version),
    }));
  }

  return {
    async updatePublicKey(publicKey, options) {
      const id = context.me();
      await context.write(options, { collection: "users", id }, (request) =>
        context.collection("users").update(id, { public_key: publicKey }, request),
      );
    },
    async getRoomKey(roomId, options) {
      const [newest] = await keysOf(roomId, 1, options);
      return newest ?? { encryptedKey: null };
    },
    getRoomKeys: async (roomId, options) => ({ keys: await keysOf(roomId, 500, options) }),
    async saveRoomKeys(roomId, encryptedKeys, options) {
      const body = { keys: encryptedKeys, ...(options?.version === undefined ? {} : { version: options.version }) };
      return context.route<{ version: number }>("POST", `rooms/${roomId}/keys`, body, options);
    },
  };
}
