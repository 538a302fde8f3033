// One line for a message: in quotes, in the pinned bar, in search results.

import type { TFunction } from "i18next";
import type { ShownMessage } from "@/model/timeline";

export function summary(
  message: Pick<ShownMessage, "text" | "type"> & { attachments?: readonly { name: string }[] },
  t: TFunction,
): string {
  if (message.text === null) return t("rooms.encryptedPreview");
  if (message.text) return message.text;
  if (message.type === "image") return t("rooms.photo");
  return message.attachments?.[0]?.name ?? t("rooms.file");
}
