// Short messages below the header, where they cover neither the composer nor the newest messages; read aloud by screen readers: results of actions, and errors.

import { Notification } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { create } from "zustand";
import styles from "./notices.module.css";

interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

const SHOWN_FOR = 5_000;
let last = 0;

const useNotices = create<{ notices: Notice[] }>(() => ({ notices: [] }));

const remove = (id: number) =>
  useNotices.setState(({ notices }) => ({ notices: notices.filter((one) => one.id !== id) }));

export function notify(text: string, bad = false): void {
  const id = ++last;
  useNotices.setState(({ notices }) => ({
    notices: [...notices.filter((one) => one.text !== text).slice(-2), { id, text, bad }],
  }));
  setTimeout(remove, SHOWN_FOR, id);
}

export function Notices() {
  const { t } = useTranslation();
  const notices = useNotices((state) => state.notices);
  return (
    <div className={styles.notices} role="status" aria-live="polite">
      {notices.map(({ id, text, bad }) => (
        <Notification
          key={id}
          color={bad ? "red" : "accent"}
          onClose={() => remove(id)}
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
