// Short messages below the header, where they cover neither the composer nor the newest messages. Screen readers read them
// aloud.

import { Notification } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { removeNotice, useNotices } from "@/model/notices";
import styles from "./notices.module.css";

export function Notices() {
  const { t } = useTranslation();
  const notices = useNotices((state) => state.notices);
  return (
    <div className={styles.notices} role="status" aria-live="polite">
      {notices.map(({ id, text, bad }) => (
        <Notification
          key={id}
          color={bad ? "red" : "accent"}
          onClose={() => removeNotice(id)}
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
