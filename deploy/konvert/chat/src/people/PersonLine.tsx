// One person in a list: picture with status, name, a note, and actions at the end.

import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import type { User } from "konvert-backend-adapter/interface";
import { nameOf, useStatus } from "@/model/people";
import { ago } from "@/model/times";
import { Avatar } from "@/widgets/Avatar";
import styles from "./PersonLine.module.css";

interface Props {
  person: User;
  onClick?: () => void;
  note?: ReactNode;
  badge?: ReactNode;
  children?: ReactNode;
}

export function PersonLine({ person, onClick, note, badge, children }: Props) {
  const { status, lastSeen } = useStatus(person.id);
  const content = (
    <>
      <Avatar id={person.id} name={nameOf(person)} url={person.avatar_url} size={38} status={status} />
      <span className={styles.body}>
        <span className={styles.name}>
          <span className={styles.nameText}>{nameOf(person)}</span>
          {badge}
        </span>
        <span className={styles.note}>{note ?? <StatusText status={status} lastSeen={lastSeen} />}</span>
      </span>
    </>
  );
  return (
    <div className={styles.line}>
      {onClick ? (
        <button type="button" className={styles.main} onClick={onClick}>
          {content}
        </button>
      ) : (
        <div className={styles.main}>{content}</div>
      )}
      {children}
    </div>
  );
}

export function StatusText({ status, lastSeen }: ReturnType<typeof useStatus>) {
  const { t } = useTranslation();
  if (!status) return null;
  if (status === "offline" && lastSeen)
    return <>{t("status.lastSeen", { when: Date.now() - lastSeen < 60_000 ? t("status.justNow") : ago(lastSeen) })}</>;
  return <>{t(`status.${status}`)}</>;
}
