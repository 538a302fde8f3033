// A person: status, friendship, direct chat, block; for moderators also muting, bans and roles.

import { Badge, Button, Menu, Modal } from "@mantine/core";
import {
  IconBan,
  IconChevronDown,
  IconMessage,
  IconMicrophone2Off,
  IconShield,
  IconUserCheck,
  IconUserMinus,
  IconUserOff,
  IconUserPlus,
} from "@tabler/icons-react";
import type { Role, User } from "konvert-backend-adapter/interface";
import { lazy, Suspense, useEffect } from "react";
import { useTranslation } from "react-i18next";
import { backend } from "@/model/backend";
import { accept, befriend, unfriend, useFriends } from "@/model/friends";
import { nameOf, refreshPerson, usePerson, useStatus } from "@/model/people";
import { attempt } from "@/model/problems";
import { isMuted } from "@/model/rooms";
import { meId, setMe, useMe } from "@/model/session";
import { moment } from "@/model/times";
import { openDirect } from "@/rooms/newChat";
import { Avatar } from "@/widgets/Avatar";
import { notify } from "@/model/notices";
import { StatusText } from "./PersonLine";
import { closeProfile, useProfile } from "./profile";
import styles from "./Profile.module.css";

const Achievements = lazy(() => import("./Achievements"));

export default function Profile() {
  const { t } = useTranslation();
  const id = useProfile((state) => state.user);
  const person = usePerson(id ?? "");
  const status = useStatus(id ?? "");
  const me = useMe();
  useEffect(() => {
    if (id) void refreshPerson(id).catch(() => undefined);
  }, [id]);
  const staff = me.role === "admin" || me.role === "moderator";
  return (
    <Modal
      opened={id !== null}
      onClose={closeProfile}
      title={t("people.profile")}
      size="sm"
      closeButtonProps={{ "aria-label": t("do.close") }}
    >
      {person && (
        <div className={styles.profile}>
          <Avatar id={person.id} name={nameOf(person)} url={person.avatar_url} size={92} status={status.status} />
          <p className={styles.name}>{nameOf(person)}</p>
          <p className={styles.status}>
            @{person.username}
            {status.status && " · "}
            <StatusText {...status} />
          </p>
          {person.status_text && <p className={styles.about}>{person.status_text}</p>}
          <Marks person={person} />
          <div className={styles.actions}>
            <Button
              leftSection={<IconMessage size={18} />}
              onClick={() => void openDirect(person.id).then((done) => done && closeProfile())}
            >
              {t("people.message")}
            </Button>
            <Friendship person={person} />
            <Block person={person} />
          </div>
          <Suspense fallback={null}>
            <Achievements userId={person.id} />
          </Suspense>
          {staff && person.id !== meId() && <Moderation person={person} admin={me.role === "admin"} />}
        </div>
      )}
    </Modal>
  );
}

function Marks({ person }: { person: User }) {
  const { t } = useTranslation();
  const marks: [string, string][] = [];
  if (person.role !== "user") marks.push([t(`people.role.${person.role}`), "accent"]);
  if (isMuted(person)) marks.push([t("people.muted"), "orange"]);
  if (person.banned)
    marks.push([t("people.banned") + (person.ban_until ? ` · ${moment(person.ban_until)}` : ""), "red"]);
  return (
    <div className={styles.marks}>
      {marks.map(([text, color]) => (
        <Badge key={text} color={color} variant="light" tt="none">
          {text}
        </Badge>
      ))}
    </div>
  );
}

function Friendship({ person }: { person: User }) {
  const { t } = useTranslation();
  const { friends, requests } = useFriends();
  if (friends.some(({ id }) => id === person.id)) {
    return (
      <Button variant="default" leftSection={<IconUserMinus size={18} />} onClick={() => void unfriend(person.id)}>
        {t("people.removeFriend")}
      </Button>
    );
  }
  const incoming = requests.find(({ from }) => from.id === person.id);
  if (incoming) {
    return (
      <Button variant="light" leftSection={<IconUserCheck size={18} />} onClick={() => void accept(incoming.id)}>
        {t("friends.accept")}
      </Button>
    );
  }
  const asked = requests.some(({ to }) => to.id === person.id);
  return (
    <Button
      variant="default"
      disabled={asked}
      leftSection={<IconUserPlus size={18} />}
      onClick={() => void befriend(person.id)}
    >
      {t(asked ? "people.requested" : "people.addFriend")}
    </Button>
  );
}

function Block({ person }: { person: User }) {
  const { t } = useTranslation();
  const me = useMe();
  const blocked = me.blocked_users?.includes(person.id) ?? false;
  async function toggle() {
    const done = await attempt(() => (blocked ? backend().unblockUser(person.id) : backend().blockUser(person.id)));
    if (!done) return;
    setMe((await backend().getMe()).user);
    if (!blocked) notify(t("people.blocked", { name: nameOf(person) }));
  }
  return (
    <Button
      variant="subtle"
      color={blocked ? "gray" : "red"}
      className={blocked ? undefined : "k-danger"}
      leftSection={<IconUserOff size={18} />}
      onClick={() => void toggle()}
    >
      {t(blocked ? "people.unblock" : "people.block")}
    </Button>
  );
}

/** Hours of a ban or of muting; without a number, for ever. */
const SPANS = [1, 24, 24 * 7, undefined] as const;
const ROLES: readonly Role[] = ["user", "vip", "moderator", "admin"];

function Moderation({ person, admin }: { person: User; admin: boolean }) {
  const { t } = useTranslation();
  const span = (hours: number | undefined) =>
    hours === undefined
      ? t("people.forever")
      : hours < 24
        ? t("people.hours", { count: hours })
        : t("people.days", { count: hours / 24 });
  async function run(call: () => Promise<unknown>) {
    if (!(await attempt(call))) return;
    await refreshPerson(person.id).catch(() => undefined);
    notify(t("people.done"));
  }
  const muted = isMuted(person);
  return (
    <div className={styles.moderation}>
      {muted ? (
        <Button variant="default" onClick={() => void run(() => backend().unmuteUser(person.id))}>
          {t("people.unmute")}
        </Button>
      ) : (
        <Choices
          label={t("people.mute")}
          icon={<IconMicrophone2Off size={18} />}
          options={SPANS.slice(0, 3).map((hours) => ({
            label: span(hours),
            run: () => run(() => backend().muteUser(person.id, hours)),
          }))}
        />
      )}
      {person.banned ? (
        <Button variant="default" onClick={() => void run(() => backend().unbanUser(person.id))}>
          {t("people.unban")}
        </Button>
      ) : (
        <Choices
          label={t("people.ban")}
          icon={<IconBan size={18} />}
          options={SPANS.map((hours) => ({
            label: span(hours),
            run: () => run(() => backend().banUser(person.id, hours)),
          }))}
        />
      )}
      {admin && (
        <Choices
          label={t("people.makeRole")}
          icon={<IconShield size={18} />}
          options={ROLES.filter((role) => role !== person.role).map((role) => ({
            label: t(`people.role.${role}`),
            run: () => run(() => backend().updateUserRole(person.id, role)),
          }))}
        />
      )}
    </div>
  );
}

function Choices({
  label,
  icon,
  options,
}: {
  label: string;
  icon: React.ReactNode;
  options: { label: string; run: () => Promise<void> }[];
}) {
  return (
    <Menu position="bottom-start">
      <Menu.Target>
        <Button variant="default" leftSection={icon} rightSection={<IconChevronDown size={15} />}>
          {label}
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {options.map((option) => (
          <Menu.Item key={option.label} onClick={() => void option.run()}>
            {option.label}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
