// One chat in the list: picture, name, the last message or the draft, time, unread count.

import { IconAt, IconBellOff, IconBookmark, IconHash, IconLock } from "@tabler/icons-react";
import type { TFunction } from "i18next";
import { memo, useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { useBlocked } from "@/model/blocked";
import { contentNow, isSecret, readContent } from "@/model/content";
import { useDraft } from "@/model/drafts";
import { nameOf, usePerson, useStatus } from "@/model/people";
import type { RoomView } from "@/model/rooms";
import { useSecrecy } from "@/model/secrecy";
import { meId } from "@/model/session";
import { shortTime } from "@/model/times";
import { useTyping } from "@/model/typing";
import { Avatar } from "@/widgets/Avatar";
import { firstLine } from "@/chat/summary";
import { TypingText } from "@/chat/TypingText";
import styles from "./Sidebar.module.css";

export const RoomItem = memo(function RoomItem({ room, current }: { room: RoomView; current: boolean }) {
  const { t } = useTranslation();
  const title = useRoomName(room);
  return (
    <button
      type="button"
      className={styles.item}
      aria-current={current ? "page" : undefined}
      onClick={() => go({ view: "room", room: room.id })}
    >
      <RoomAvatar room={room} size={46} />
      <span className={styles.body}>
        <span className={styles.top}>
          <span className={styles.name}>
            <RoomIcon room={room} />
            <span>{title}</span>
            {room.muted && <IconBellOff size={14} aria-hidden="true" />}
          </span>
          <time className={styles.time} dateTime={room.last_activity}>
            {room.last_message && shortTime(room.last_activity)}
          </time>
        </span>
        <span className={styles.bottom}>
          <Preview room={room} current={current} />
          {room.mentioned && (
            <span className={styles.mention} role="img" aria-label={t("rooms.mentioned")}>
              <IconAt size={14} />
            </span>
          )}
          {room.unread > 0 && !current && (
            <span
              className={styles.badge}
              data-muted={room.muted || undefined}
              role="img"
              aria-label={t("rooms.unread", { count: room.unread })}
            >
              {room.unread > 99 ? "99+" : room.unread}
            </span>
          )}
        </span>
      </span>
    </button>
  );
});

/** Names that the adapter gives; a name of the user's own stays. */
const FAVORITES = ["Favourites", "Избранное"];

export function useRoomName(room: RoomView): string {
  const other = usePerson(room.other ?? "");
  const { t } = useTranslation();
  if (room.is_favorites && FAVORITES.includes(room.name)) return t("rooms.favorites");
  return room.other ? nameOf(other) || room.name : room.name;
}

/** Title of the room's details. */
export const detailsTitle = (room: RoomView) => (room.type === "dm" ? "chat.detailsDirect" : "chat.details");

export function RoomAvatar({ room, size }: { room: RoomView; size: number }) {
  const other = usePerson(room.other ?? "");
  const { status } = useStatus(room.other ?? "");
  const name = useRoomName(room);
  if (room.other) return <Avatar id={room.other} name={name} url={other?.avatar_url} size={size} status={status} />;
  return (
    <Avatar
      id={room.id}
      name={name}
      url={room.avatar_url}
      size={size}
      icon={room.is_favorites ? <IconBookmark size={size * 0.5} /> : undefined}
    />
  );
}

export function RoomIcon({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  if (room.type === "dm") return null;
  const Icon = room.type === "public" ? IconHash : IconLock;
  return <Icon size={14} role="img" aria-label={t(`rooms.type.${room.type}`)} style={{ flex: "none" }} />;
}

function Preview({ room, current }: { room: RoomView; current: boolean }) {
  const { t } = useTranslation();
  const draft = useDraft(room.id);
  const typing = useTyping(room.id);
  const text = useLastText(room, t);
  if (typing.length) {
    return (
      <span className={`${styles.preview} ${styles.typing}`}>
        <TypingText users={typing} />
      </span>
    );
  }
  if (draft.text && !draft.editing && !current) {
    return (
      <span className={styles.preview}>
        <span className={styles.draft}>{t("rooms.draft")}</span> {draft.text}
      </span>
    );
  }
  return <span className={styles.preview}>{text}</span>;
}

/** The last message in one line. Encrypted ones are decrypted here, if this device has the key. */
function useLastText(room: RoomView, t: TFunction): string {
  const last = room.last_message;
  const content = last?.content ?? "";
  const known = last ? contentNow(last) : null;
  const [, setRead] = useState(0);
  const author = usePerson(last?.sender_id ?? "");
  const blocked = useBlocked();
  const keys = useSecrecy((state) => state.keyrings[room.id]);
  useEffect(() => {
    if (!content || !isSecret(content) || contentNow({ content })) return;
    let shown = true;
    void readContent({ content, room_id: room.id }).then((opened) => opened && shown && setRead((times) => times + 1));
    return () => {
      shown = false;
    };
  }, [content, room.id, keys]);
  if (!last) return t("rooms.empty");
  const own = last.sender_id === meId();
  const from =
    room.type === "dm" && !own ? "" : own ? `${t("rooms.you")} ` : `${nameOf(author) || last.sender_username}: `;
  if (blocked.has(last.sender_id)) return t("chat.blockedLine", { count: 1 });
  if (!known) return from + t("rooms.encryptedPreview");
  if (known.text) return from + firstLine(known.text, last.type);
  return (
    from + (last.type === "image" ? t("rooms.photo") : (known.files[0]?.name ?? last.file_name ?? t("rooms.file")))
  );
}
