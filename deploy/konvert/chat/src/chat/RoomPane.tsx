// An open chat: header, pinned message, timeline, composer.

import { Button } from "@mantine/core";
import { IconDoorExit, IconMessageCircle, IconUserPlus } from "@tabler/icons-react";
import { useEffect, useRef, useState, type DragEvent } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { runtime } from "@/app/runtime";
import { backend } from "@/model/backend";
import { chooseFiles, useChosenFiles } from "@/model/chosenFiles";
import { isMuted, joinRoom, loadMembers, markRead, putRoom, useRoom, useRooms, type RoomView } from "@/model/rooms";
import { shareKeys } from "@/model/secrecy";
import { meId, useMe } from "@/model/session";
import { moment } from "@/model/times";
import { openRoom, reach, useTimeline } from "@/model/timeline";
import { openInvite } from "@/people/invite";
import { EmptyState } from "@/widgets/EmptyState";
import { Composer } from "./Composer";
import { tooLarge } from "./FileTray";
import { Header } from "./Header";
import { PinnedBar } from "./PinnedBar";
import { Timeline } from "./Timeline";
import styles from "./RoomPane.module.css";

export function RoomPane({ roomId, target }: { roomId: string; target: string | undefined }) {
  const { t } = useTranslation();
  const room = useRoom(roomId);
  const loaded = useRooms((state) => state.loaded);
  const { closed } = useTimeline(roomId);
  const known = room !== undefined;

  // The room is followed even while the user has no access: when they are added again, it opens by itself.
  useEffect(() => openRoom(roomId), [roomId]);
  useEffect(() => {
    if (!known && loaded)
      backend()
        .getRoom(roomId)
        .then(
          ({ room: found }) => putRoom(found),
          () => undefined,
        );
  }, [known, loaded, roomId]);
  useEffect(() => {
    if (target && known) void reach(roomId, target);
  }, [roomId, target, known]);
  const encrypted = room?.encrypted ?? false;
  useEffect(() => {
    if (!known || closed) return;
    void loadMembers(roomId).catch(() => undefined);
    if (encrypted) void shareKeys(roomId);
  }, [roomId, known, closed, encrypted]);

  if (!room || closed) {
    if (!room && !loaded) return <section className={styles.pane} />;
    return (
      <section className={styles.pane} aria-label={t("rooms.gone")}>
        {room && <Header room={room} />}
        <div className={styles.center}>
          <EmptyState icon={<IconDoorExit size={30} />} title={t("rooms.gone")} hint={t("rooms.goneHint")}>
            <Button onClick={() => go({ view: "rooms" })}>{t("chat.back")}</Button>
          </EmptyState>
        </div>
      </section>
    );
  }
  return <OpenRoom key={roomId} room={room} target={target} />;
}

function OpenRoom({ room, target }: { room: RoomView; target: string | undefined }) {
  const { t } = useTranslation();
  const { messages, more, loading } = useTimeline(room.id);
  const files = useChosenFiles(room.id);
  const setFiles = (next: readonly File[]) => chooseFiles(room.id, next);
  const [over, setOver] = useState(false);
  // The line "New messages" stays where it was when the room was opened.
  const [readUntil] = useState(() => (room.unread > 0 ? room.last_read[meId()] : undefined));
  const newest = messages.at(-1)?.id;
  const pane = useRef<HTMLElement>(null);

  useEffect(() => {
    markRead(room.id);
    const visible = () => markRead(room.id);
    document.addEventListener("visibilitychange", visible);
    return () => document.removeEventListener("visibilitychange", visible);
  }, [room.id, newest, room.unread]);

  function drop(event: DragEvent) {
    event.preventDefault();
    setOver(false);
    const dropped = [...event.dataTransfer.files].filter((file) => !tooLarge(file, t));
    if (dropped.length) setFiles([...files, ...dropped]);
  }

  return (
    <section
      ref={pane}
      className={styles.pane}
      aria-label={room.name}
      onDragOver={(event) => {
        if (!room.mayWrite || !event.dataTransfer.types.includes("Files")) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => !pane.current?.contains(event.relatedTarget as Node) && setOver(false)}
      onDrop={drop}
    >
      <Header room={room} />
      <PinnedBar room={room} />
      {!messages.length && !more && !loading ? (
        <FirstMessage room={room} />
      ) : (
        <Timeline room={room} target={target} readUntil={readUntil} onSeen={() => markRead(room.id)} />
      )}
      <Foot room={room} files={files} onFiles={setFiles} />
      {over && <div className={styles.drop}>{t("chat.drop")}</div>}
    </section>
  );
}

function FirstMessage({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  return (
    <div className={styles.center}>
      <EmptyState icon={<IconMessageCircle size={30} />} title={t("chat.firstTitle")} hint={t("chat.firstHint")}>
        {room.moderator && room.type !== "dm" && (
          <Button variant="light" leftSection={<IconUserPlus size={18} />} onClick={() => openInvite(room.id)}>
            {t("chat.firstInvite")}
          </Button>
        )}
      </EmptyState>
    </div>
  );
}

/** The composer, or the reason why the user cannot write. */
interface FootProps {
  room: RoomView;
  files: readonly File[];
  onFiles: (files: readonly File[]) => void;
}

function Foot({ room, files, onFiles }: FootProps) {
  const { t } = useTranslation();
  const me = useMe();
  if (!room.member) {
    return (
      <div className={styles.foot}>
        <span>{t("chat.readOnly")}</span>
        <Button onClick={() => void joinRoom(room.id)}>{t("chat.join")}</Button>
      </div>
    );
  }
  if (isMuted(me)) {
    return (
      <div className={styles.foot} role="status">
        {me.mute_until ? t("chat.mutedUntil", { date: moment(me.mute_until) }) : t("chat.muted")}
      </div>
    );
  }
  return <Composer room={room} files={files} onFiles={onFiles} />;
}

/** The room that a demo opens first. */
export const firstRoom = (): string | null => runtime().room;
