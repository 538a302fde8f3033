// Notifications: invitations, mentions, reactions and friend requests, with a way to answer or to go there.

import { ActionIcon, Button } from "@mantine/core";
import { IconArrowLeft, IconBell, IconCheck, IconChecks, IconX } from "@tabler/icons-react";
import type { Notification } from "konvert-backend-adapter/interface";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import {
  answer,
  dismiss,
  load,
  loadMore,
  markAll,
  markNotification,
  useNotifications,
  useUnreadNotifications,
} from "@/model/notifications";
import { nameOf, usePerson } from "@/model/people";
import { useRooms } from "@/model/rooms";
import { ago, moment } from "@/model/times";
import { openProfile } from "@/people/profile";
import { Avatar } from "@/widgets/Avatar";
import { EmptyState } from "@/widgets/EmptyState";
import page from "@/settings/Page.module.css";
import styles from "./Notifications.module.css";

export default function Notifications() {
  const { t } = useTranslation();
  const { list, cursor, state } = useNotifications();
  const unread = useUnreadNotifications();
  return (
    <section className={page.page} aria-labelledby="notifications">
      <header className={page.head}>
        <ActionIcon aria-label={t("chat.back")} onClick={() => go({ view: "rooms" })} size={40}>
          <IconArrowLeft size={21} />
        </ActionIcon>
        <h1 id="notifications">{t("notes.title")}</h1>
        {unread > 0 && (
          <Button
            ml="auto"
            size="xs"
            variant="subtle"
            leftSection={<IconChecks size={17} />}
            onClick={() => void markAll()}
          >
            {t("notes.markAll")}
          </Button>
        )}
      </header>
      <div className={page.scroll}>
        <div className={page.content}>
          {list.length > 0 && (
            <ul className={styles.list}>
              {list.map((notification) => (
                <li key={notification.id} className={styles.line} data-unread={!notification.read || undefined}>
                  <Line notification={notification} />
                </li>
              ))}
            </ul>
          )}
          {cursor && (
            <Button variant="default" onClick={() => void loadMore()}>
              {t("notes.more")}
            </Button>
          )}
          {state === "loaded" && !list.length && (
            <EmptyState icon={<IconBell size={28} />} title={t("notes.none")} hint={t("notes.noneHint")} />
          )}
          {state === "failed" && (
            <EmptyState icon={<IconBell size={28} />} title={t("notes.failed")}>
              <Button variant="default" onClick={() => void load()}>
                {t("chat.retry")}
              </Button>
            </EmptyState>
          )}
        </div>
      </div>
    </section>
  );
}

function Line({ notification }: { notification: Notification }) {
  const { t } = useTranslation();
  const {
    id,
    type,
    fromUserId = "",
    fromUsername,
    roomId,
    messageId,
    content,
    createdAt,
    read,
    requestId,
  } = notification;
  const person = usePerson(fromUserId);
  const room = useRooms((state) => state.rooms[roomId ?? ""]);
  const name = nameOf(person) || fromUsername || t("chat.someone");
  const roomName = (room?.type === "dm" ? "" : room?.name) || notification.roomName || "";

  function visit() {
    if (!read) void markNotification(id);
    if (roomId) go(messageId ? { view: "room", room: roomId, message: messageId } : { view: "room", room: roomId });
    else openProfile(fromUserId);
  }

  return (
    <>
      <button type="button" className={styles.main} onClick={visit}>
        <Avatar id={fromUserId} name={name} url={person?.avatar_url} size={40} />
        <span className={styles.body}>
          <span className={styles.text}>
            {t(`notes.${type}${roomName && type !== "room_invite" ? ".room" : ""}` as "notes.mention", {
              name,
              room: roomName,
              emoji: content,
            })}
          </span>
          {type === "mention" && content && <span className={styles.excerpt}>{content}</span>}
          <time className={styles.time} dateTime={createdAt} title={moment(createdAt)}>
            {!read && <span className={styles.unread}>{t("notes.new")}</span>}
            {ago(createdAt)}
          </time>
        </span>
      </button>
      {type === "friend_request" && requestId ? (
        <Answer notification={notification} name={name} />
      ) : (
        <ActionIcon
          aria-label={`${t("notes.dismiss")}: ${name}`}
          title={t("notes.dismiss")}
          onClick={() => void dismiss(id)}
        >
          <IconX size={17} />
        </ActionIcon>
      )}
    </>
  );
}

function Answer({ notification, name }: { notification: Notification; name: string }) {
  const { t } = useTranslation();
  const [busy, setBusy] = useState(false);
  async function say(isAccepted: boolean) {
    setBusy(true);
    await answer(notification, isAccepted);
    setBusy(false);
  }
  return (
    <span className={styles.actions}>
      <Button
        size="xs"
        loading={busy}
        aria-label={`${t("friends.accept")}: ${name}`}
        leftSection={<IconCheck size={16} />}
        onClick={() => void say(true)}
      >
        {t("friends.accept")}
      </Button>
      <ActionIcon
        aria-label={`${t("friends.reject")}: ${name}`}
        title={t("friends.reject")}
        disabled={busy}
        onClick={() => void say(false)}
      >
        <IconX size={18} />
      </ActionIcon>
    </span>
  );
}
