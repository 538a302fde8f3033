// The line above a chat: name, who is there or typing, encryption, search and details.

import { ActionIcon, Tooltip } from "@mantine/core";
import { IconArrowLeft, IconInfoCircle, IconLock, IconSearch } from "@tabler/icons-react";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { go, useRoute } from "@/app/route";
import { useConnection } from "@/model/connection";
import { useStatus, useStatuses } from "@/model/people";
import { meId } from "@/model/session";
import type { RoomView } from "@/model/rooms";
import { useTyping } from "@/model/typing";
import { StatusText } from "@/people/PersonLine";
import { openProfile } from "@/people/profile";
import { RoomAvatar, RoomIcon, detailsTitle, useRoomName } from "@/rooms/RoomItem";
import { TypingText } from "./TypingText";
import { openSearch } from "./search";
import styles from "./Header.module.css";

/** Statuses are followed for so many members at most. */
const MOST_FOLLOWED = 50;

export function Header({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  const route = useRoute();
  const name = useRoomName(room);
  const details = route.view === "room" && route.details === true;
  const toggleDetails = () =>
    details ? go({ view: "room", room: room.id }) : go({ view: "room", room: room.id, details: true });
  const onTitle = () => (room.other ? openProfile(room.other) : toggleDetails());
  return (
    <header className={styles.header}>
      <ActionIcon className={styles.back} aria-label={t("chat.back")} onClick={() => go({ view: "rooms" })} size={40}>
        <IconArrowLeft size={21} />
      </ActionIcon>
      <button
        type="button"
        className={styles.title}
        title={t(room.other ? "people.profile" : detailsTitle(room))}
        onClick={onTitle}
      >
        <RoomAvatar room={room} size={40} />
        <span className={styles.text}>
          <span className={styles.name}>
            <RoomIcon room={room} />
            <h1>{name}</h1>
            {room.encrypted && room.type === "dm" && <IconLock size={14} role="img" aria-label={t("e2ee.roomOn")} />}
          </span>
          <Presence room={room} />
        </span>
      </button>
      <Tooltip label={t("chat.search")}>
        <ActionIcon aria-label={t("chat.search")} onClick={() => openSearch(room.id)} size={40}>
          <IconSearch size={20} />
        </ActionIcon>
      </Tooltip>
      <Tooltip label={t(detailsTitle(room))}>
        <ActionIcon aria-label={t(detailsTitle(room))} aria-expanded={details} onClick={toggleDetails} size={40}>
          <IconInfoCircle size={21} />
        </ActionIcon>
      </Tooltip>
    </header>
  );
}

function Presence({ room }: { room: RoomView }) {
  const typing = useTyping(room.id);
  return (
    <span className={styles.presence} data-typing={typing.length > 0 || undefined} aria-live="polite">
      {typing.length ? (
        <TypingText users={typing} />
      ) : room.other ? (
        <OtherStatus id={room.other} />
      ) : (
        <MemberCount room={room} />
      )}
    </span>
  );
}

function OtherStatus({ id }: { id: string }) {
  const { status, lastSeen } = useStatus(id);
  return <StatusText status={status} lastSeen={lastSeen} />;
}

function MemberCount({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  const followed = useMemo(() => room.members.filter((id) => id !== meId()).slice(0, MOST_FOLLOWED), [room.members]);
  const statuses = useStatuses(followed);
  const isLost = useConnection((state) => state.lost);
  const online = Object.values(statuses).filter((status) => status !== "offline").length + (room.member ? 1 : 0);
  return (
    <>
      {t("chat.members", { count: room.member_count })}
      {!isLost && online > 0 && `, ${t("chat.online", { count: online })}`}
    </>
  );
}
