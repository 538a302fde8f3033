// One line for a message: in quotes, in the pinned bar, in search results.

import type { TFunction } from "i18next";
import { isBlocked } from "@/model/blocked";
import type { ShownMessage } from "@/model/timeline";

/** A poll's text has the question in the first line; other texts stay whole. */
export const firstLine = (text: string, type: string): string =>
  type === "poll" ? (text.split("\n")[0] ?? text) : text;

export function summary(
  message: Pick<ShownMessage, "text" | "type" | "sender_id"> & { attachments?: readonly { name: string }[] },
  t: TFunction,
): string {
  if (isBlocked(message.sender_id)) return t("chat.blockedLine", { count: 1 });
  if (message.text === null) return t("rooms.encryptedPreview");
  if (message.text) return firstLine(message.text, message.type);
  if (message.type === "image") return t("rooms.photo");
  return message.attachments?.[0]?.name ?? t("rooms.file");
}
