// The right column of a room: what it is, its members with their roles, leaving and deleting.

import { ActionIcon, Badge, Button, CloseButton, Menu } from "@mantine/core";
import {
  IconDots,
  IconDoorExit,
  IconLock,
  IconLockOpen,
  IconShield,
  IconShieldOff,
  IconTrash,
  IconUserMinus,
  IconUserPlus,
} from "@tabler/icons-react";
import type { Member } from "konvert-backend-adapter/interface";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { backend } from "@/model/backend";
import { useConnection } from "@/model/connection";
import { nameOf, useStatuses } from "@/model/people";
import { attempt } from "@/model/problems";
import { dropRoom, loadMembers, useMembers, useRoom, type RoomView } from "@/model/rooms";
import { renewKeys } from "@/model/secrecy";
import { meId } from "@/model/session";
import { RoomAvatar, detailsTitle, useRoomName } from "@/rooms/RoomItem";
import { ask } from "@/model/questions";
import { openInvite } from "./invite";
import { PersonLine } from "./PersonLine";
import { openProfile } from "./profile";
import styles from "./Details.module.css";

export default function Details({ roomId }: { roomId: string }) {
  const { t } = useTranslation();
  const room = useRoom(roomId);
  if (!room) return null;
  const title = t(detailsTitle(room));
  return (
    <aside className={styles.details} aria-label={title}>
      <header className={styles.head}>
        <h2>{title}</h2>
        <CloseButton aria-label={t("do.close")} onClick={() => go({ view: "room", room: roomId })} />
      </header>
      <div className={styles.scroll}>
        <About room={room} />
        <Members room={room} />
        {room.member && room.type !== "dm" && <Leaving room={room} />}
      </div>
    </aside>
  );
}

function About({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  const name = useRoomName(room);
  return (
    <div className={styles.about}>
      <RoomAvatar room={room} size={84} />
      <p className={styles.name}>{name}</p>
      <p className={styles.kind}>{t(`rooms.type.${room.type === "dm" ? "direct" : room.type}`)}</p>
      <p className={styles.kind}>
        {room.encrypted ? <IconLock size={14} aria-hidden="true" /> : <IconLockOpen size={14} aria-hidden="true" />}
        {t(room.encrypted ? "e2ee.roomOn" : "e2ee.roomClear")}
      </p>
    </div>
  );
}

function Members({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  const members = useMembers(room.id);
  const ids = useMemo(() => (members ?? []).slice(0, 100).map(({ user }) => user.id), [members]);
  const statuses = useStatuses(ids);
  const here = (member: Member) => member.user.id === meId() || (statuses[member.user.id] ?? "offline") !== "offline";
  const isLost = useConnection((state) => state.lost);
  const direct = room.type === "dm";
  const groups =
    direct || isLost
      ? [{ title: "", list: members ?? [] }]
      : [
          { title: t("members.online"), list: members?.filter(here) ?? [] },
          { title: t("members.offline"), list: members?.filter((member) => !here(member)) ?? [] },
        ];
  return (
    <section aria-label={t("members.title")}>
      {!direct && (
        <div className={styles.bar}>
          <h3>{t("chat.members", { count: room.member_count })}</h3>
          {room.moderator && (
            <Button
              size="xs"
              variant="light"
              leftSection={<IconUserPlus size={16} />}
              onClick={() => openInvite(room.id)}
            >
              {t("members.invite")}
            </Button>
          )}
        </div>
      )}
      {groups.map(
        ({ title, list }) =>
          list.length > 0 && (
            <div key={title}>
              {title && (
                <h4 className={styles.group}>
                  {title} · {list.length}
                </h4>
              )}
              <ul className={styles.list}>
                {list.map((member) => (
                  <li key={member.user.id}>
                    <MemberLine member={member} room={room} />
                  </li>
                ))}
              </ul>
            </div>
          ),
      )}
    </section>
  );
}

function MemberLine({ member, room }: { member: Member; room: RoomView }) {
  const { t } = useTranslation();
  const { user, role } = member;
  const badge =
    role === "member" || room.type === "dm" ? null : (
      <Badge size="sm" variant="light" tt="none">
        {t(`members.${role}`)}
      </Badge>
    );
  const mayRemove =
    user.id !== meId() &&
    room.type !== "dm" &&
    role !== "owner" &&
    (room.owner || (room.moderator && role === "member"));
  return (
    <PersonLine
      person={user}
      badge={badge}
      onClick={() => openProfile(user.id)}
      {...(user.id === meId() && { note: t("chat.you") })}
    >
      {mayRemove && <MemberMenu member={member} room={room} />}
    </PersonLine>
  );
}

function MemberMenu({ member: { user, role }, room }: { member: Member; room: RoomView }) {
  const { t } = useTranslation();
  const name = nameOf(user);
  const setRole = async (to: "moderator" | "member") => {
    if (await attempt(() => backend().setMemberRole(room.id, user.id, to))) await loadMembers(room.id);
  };
  async function remove() {
    if (!(await ask(t("members.removeSure", { name }), t("do.remove")))) return;
    if (!(await attempt(() => backend().removeMember(room.id, user.id)))) return;
    await loadMembers(room.id);
    if (room.encrypted) void renewKeys(room.id); // the removed member must not read what follows
  }
  return (
    <Menu>
      <Menu.Target>
        <ActionIcon aria-label={t("members.actions", { name })}>
          <IconDots size={18} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {room.owner && (
          <Menu.Item
            leftSection={role === "moderator" ? <IconShieldOff size={17} /> : <IconShield size={17} />}
            onClick={() => void setRole(role === "moderator" ? "member" : "moderator")}
          >
            {t(role === "moderator" ? "members.makeMember" : "members.makeModerator")}
          </Menu.Item>
        )}
        <Menu.Item className="k-danger" leftSection={<IconUserMinus size={17} />} onClick={() => void remove()}>
          {t("members.remove")}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function Leaving({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  async function close(call: () => Promise<void>) {
    if (!(await attempt(call))) return;
    go({ view: "rooms" });
    dropRoom(room.id);
  }
  async function leave() {
    const last = room.type === "private" && room.member_count === 1;
    const hint = last ? "members.leaveLast" : room.type === "private" ? "members.leavePrivate" : "members.leavePublic";
    if (await ask(t("members.leaveSure", { name: room.name }), t("do.leave"), t(hint)))
      await close(() => backend().leaveRoom(room.id));
  }
  async function remove() {
    if (await ask(t("members.deleteSure", { name: room.name }), t("do.delete")))
      await close(() => backend().deleteRoom(room.id));
  }
  return (
    <div className={styles.leaving}>
      <Button
        variant="subtle"
        color="red"
        className="k-danger"
        justify="flex-start"
        leftSection={<IconDoorExit size={18} />}
        onClick={() => void leave()}
      >
        {t("members.leave")}
      </Button>
      {room.owner && (
        <Button
          variant="subtle"
          color="red"
          className="k-danger"
          justify="flex-start"
          leftSection={<IconTrash size={18} />}
          onClick={() => void remove()}
        >
          {t("members.delete")}
        </Button>
      )}
    </div>
  );
}
