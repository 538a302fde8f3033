// The reactions below a message: one chip for each emoji. A click adds or takes back one's own.

import { Tooltip } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { nameOf, personNow } from "@/model/people";
import { meId } from "@/model/session";
import type { RoomView } from "@/model/rooms";
import { react } from "@/model/actions";
import type { ShownMessage } from "@/model/timeline";
import styles from "./Reactions.module.css";

export function Reactions({ message, room }: { message: ShownMessage; room: RoomView }) {
  const { t } = useTranslation();
  const reactions = Object.entries(message.reactions ?? {}).filter(([, users]) => users.length > 0);
  if (!reactions.length) return null;
  return (
    <div className={styles.reactions} role="group" aria-label={t("message.reactions")}>
      {reactions.map(([emoji, users]) => {
        const own = users.includes(meId());
        const names = users
          .map((id) => (id === meId() ? t("chat.you") : nameOf(personNow(id)) || t("chat.someone")))
          .join(", ");
        return (
          <Tooltip key={emoji} label={names}>
            <button
              type="button"
              className={styles.chip}
              data-own={own || undefined}
              aria-pressed={own}
              aria-label={t("message.reactedBy", { emoji, users: users.length, names })}
              disabled={!room.member}
              onClick={() => void react(message, emoji)}
            >
              <span>{emoji}</span> {users.length}
            </button>
          </Tooltip>
        );
      })}
    </div>
  );
}
