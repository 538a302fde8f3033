// Above the field: the message that is answered or edited.

import { CloseButton } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { keepDraft, type Draft } from "@/model/drafts";
import { nameOf, usePerson } from "@/model/people";
import type { RoomView } from "@/model/rooms";
import { useMessage } from "@/model/timeline";
import { summary } from "./summary";
import styles from "./Composer.module.css";

export function ComposerContext({ room, draft }: { room: RoomView; draft: Draft }) {
  const { t } = useTranslation();
  const message = useMessage(room.id, draft.editing ?? draft.replyTo ?? "");
  const author = usePerson(message?.sender_id ?? "");
  if (!draft.editing && !draft.replyTo) return null;
  const name = message?.mine ? t("chat.you") : nameOf(author);
  return (
    <div className={styles.context}>
      <div className={styles.contextText}>
        <div className={styles.contextTitle}>
          {draft.editing ? t("compose.editing") : t("compose.replyTo", { name })}
        </div>
        <div className={styles.contextLine}>{message ? summary(message, t) : t("message.gone")}</div>
      </div>
      <CloseButton
        aria-label={t("compose.cancel")}
        onClick={() => keepDraft(room.id, { text: draft.editing ? "" : draft.text })}
      />
    </div>
  );
}
