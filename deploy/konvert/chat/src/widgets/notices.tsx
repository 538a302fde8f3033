// Short messages: in a chat below the header, where they cover neither the composer nor the newest messages, elsewhere at
// the bottom, where they cover no heading. A touch removes one early. Screen readers read them aloud.

import { Notification } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { useRoute } from "@/app/route";
import { removeNotice, useNotices } from "@/model/notices";
import styles from "./notices.module.css";

export function Notices() {
  const { t } = useTranslation();
  const notices = useNotices((state) => state.notices);
  const { view } = useRoute();
  return (
    <div className={styles.notices} data-view={view} role="status" aria-live="polite">
      {notices.map(({ id, text, bad }) => (
        <Notification
          key={id}
          color={bad ? "red" : "accent"}
          onClose={() => removeNotice(id)}
          onClick={() => removeNotice(id)}
          closeButtonProps={{ "aria-label": t("do.close") }}
          withBorder
          role="presentation"
        >
          {text}
        </Notification>
      ))}
    </div>
  );
}
