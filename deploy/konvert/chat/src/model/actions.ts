// Actions on messages that the server has stored.

import i18next from "i18next";
import { BackendError } from "konvert-backend-adapter/errors";
import { ask } from "./questions";
import { notify } from "./notices";
import { backend } from "./backend";
import { writeContent } from "./content";
import { attempt, report } from "./problems";
import { putRoom, roomNow, viewOf } from "./rooms";
import { fileOf } from "./files";
import { send } from "./sending";
import { meId } from "./session";
import { change, put, takeAway, type ShownMessage } from "./timeline";

/** Adds or removes the user's own reaction. The change is shown at once, and undone if the server refuses. */
export async function react(message: ShownMessage, emoji: string): Promise<void> {
  const users = message.reactions[emoji] ?? [];
  const own = users.includes(meId());
  const show = (next: readonly string[]) =>
    change(message.room_id, ({ messages }) => ({
      messages: messages.map((one) =>
        one.id === message.id ? { ...one, reactions: { ...one.reactions, [emoji]: [...next] } } : one,
      ),
    }));
  show(own ? users.filter((id) => id !== meId()) : [...users, meId()]);
  try {
    await (own ? backend().removeReaction(message.id, emoji) : backend().addReaction(message.id, emoji));
  } catch (error) {
    show(users);
    report(error);
  }
}

export async function remove(message: ShownMessage): Promise<void> {
  if (!(await ask(i18next.t("message.deleteSure"), i18next.t("do.delete")))) return;
  const isDone = await attempt(() =>
    backend()
      .deleteMessage(message.id)
      .catch((error: unknown) => {
        // Somebody else was faster: gone is gone.
        if (!(error instanceof BackendError) || error.code !== "not_found") throw error;
      }),
  );
  if (isDone) takeAway(message.room_id, message.id);
}

export async function pin(roomId: string, messageId: string): Promise<void> {
  if (!(await attempt(() => backend().pinMessage(roomId, messageId)))) return;
  const pinned = roomNow(roomId)?.pinned_message_ids ?? [];
  putRoom({ id: roomId, pinned_message_ids: [messageId, ...pinned.filter((id) => id !== messageId)] });
}

export async function unpin(roomId: string, messageId: string): Promise<void> {
  if (!(await attempt(() => backend().unpinMessage(roomId, messageId)))) return;
  putRoom({
    id: roomId,
    pinned_message_ids: (roomNow(roomId)?.pinned_message_ids ?? []).filter((id) => id !== messageId),
  });
}

/**
 * Encrypted content is decrypted on the device and encrypted for the target room. Messages with encrypted files, or for
 * an encrypted room, are sent again with the files: the server cannot decrypt.
 */
export async function forward(message: ShownMessage, roomId: string): Promise<boolean> {
  return attempt(async () => {
    const room = roomNow(roomId);
    const secret = room !== undefined && viewOf(room, meId(), false).encrypted;
    if (message.attachments.length && (secret || message.encrypted)) {
      const files = await Promise.all(message.attachments.map((file) => fileOf(file, message)));
      return send(roomId, message.text ?? "", { files });
    }
    const content =
      secret || message.encrypted
        ? await writeContent(roomId, { text: message.text ?? "", files: [] }, secret)
        : undefined;
    const { message: copy } = await backend().forwardMessage(
      message.id,
      roomId,
      content === undefined ? {} : { content },
    );
    put(roomId, [copy]);
  });
}

export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    notify(i18next.t("e2ee.copied"));
  } catch {
    notify(i18next.t("error.unknown"), true);
  }
}
