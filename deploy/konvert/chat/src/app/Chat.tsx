// The columns of the chat: rooms, the open view, details. On a phone one column at a time.

import { Button } from "@mantine/core";
import { IconHash, IconLock, IconMessages, IconUserSearch, IconUsersPlus } from "@tabler/icons-react";
import { lazy, Suspense, useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { RoomPane } from "@/chat/RoomPane";
import { useForward } from "@/chat/forward";
import { useNewPoll } from "@/chat/newPoll";
import { useSearch } from "@/chat/search";
import { useRoomList, useRooms } from "@/model/rooms";
import { useSecrecy } from "@/model/secrecy";
import { Banner } from "@/panel/Banner";
import { usePanel } from "@/panel/panel";
import { useInvite } from "@/people/invite";
import { useProfile } from "@/people/profile";
import { useNewChat, openNewChat } from "@/rooms/newChat";
import { Sidebar } from "@/rooms/Sidebar";
import { EmptyState } from "@/widgets/EmptyState";
import { go, useRoute, type Route } from "./route";
import { runtime } from "./runtime";
import styles from "./Chat.module.css";

const Details = lazy(() => import("@/people/Details"));
const Forward = lazy(() => import("@/chat/Forward"));
const Friends = lazy(() => import("@/people/Friends"));
const Invite = lazy(() => import("@/people/Invite"));
const NewChat = lazy(() => import("@/rooms/NewChat"));
const NewPoll = lazy(() => import("@/chat/NewPoll"));
const Notifications = lazy(() => import("@/notifications/Notifications"));
const Panel = lazy(() => import("@/panel/Panel"));
const Profile = lazy(() => import("@/people/Profile"));
const Search = lazy(() => import("@/chat/Search"));
const Settings = lazy(() => import("@/settings/Settings"));

export function Chat() {
  const route = useRoute();
  useTitle();
  useFirstRoom(route);
  const room = route.view === "room" ? route.room : null;
  return (
    <div className={styles.frame}>
      <Banner />
      <LockedBar />
      <div className={styles.columns} data-view={route.view}>
        <div className={styles.left}>
          <Sidebar open={room} />
        </div>
        <main className={styles.main}>
          <Suspense fallback={null}>
            {route.view === "room" && (
              <>
                <RoomPane key={route.room} roomId={route.room} target={route.message} />
                {route.details && <Details roomId={route.room} />}
              </>
            )}
            {route.view === "rooms" && <Nothing />}
            {route.view === "friends" && <Friends />}
            {route.view === "notifications" && <Notifications />}
            {route.view === "settings" && <Settings />}
          </Suspense>
        </main>
      </div>
      <Dialogs />
    </div>
  );
}

/** Dialogs load when they are opened for the first time, and stay for their closing animation. */
function Dialogs() {
  const wanted = {
    newChat: useNewChat((state) => state.opened),
    newPoll: useNewPoll((state) => state.room !== null),
    search: useSearch((state) => state.opened),
    forward: useForward((state) => state.message !== null),
    profile: useProfile((state) => state.user !== null),
    invite: useInvite((state) => state.room !== null),
    panel: usePanel((state) => state.opened),
  };
  const [used, setUsed] = useState<Partial<typeof wanted>>({});
  useEffect(() => {
    const fresh = Object.fromEntries(
      Object.entries(wanted).filter(([name, open]) => open && !used[name as keyof typeof wanted]),
    );
    if (Object.keys(fresh).length) setUsed((before) => ({ ...before, ...fresh }));
  });
  return (
    <Suspense fallback={null}>
      {used.newChat && <NewChat />}
      {used.newPoll && <NewPoll />}
      {used.search && <Search />}
      {used.forward && <Forward />}
      {used.profile && <Profile />}
      {used.invite && <Invite />}
      {wanted.panel && <Panel />}
    </Suspense>
  );
}

/** Where no chat is open: the way to begin for newcomers, a hint for everybody else. */
function Nothing() {
  const { t } = useTranslation();
  const loaded = useRooms((state) => state.loaded);
  const newcomer = useRoomList().every((room) => !room.member);
  if (!loaded) return null;
  if (newcomer) return <Begin />;
  return (
    <div className={styles.nothing}>
      <EmptyState icon={<IconMessages size={30} />} title={t("rooms.pick")} hint={t("rooms.pickHint")}>
        <Button onClick={() => openNewChat()}>{t("rooms.new")}</Button>
      </EmptyState>
    </div>
  );
}

const STEPS = [
  { tab: "direct", icon: IconUserSearch, title: "rooms.beginDirect", hint: "rooms.beginDirectHint" },
  { tab: "room", icon: IconUsersPlus, title: "rooms.beginRoom", hint: "rooms.beginRoomHint" },
  { tab: "join", icon: IconHash, title: "rooms.beginJoin", hint: "rooms.beginJoinHint" },
] as const;

function Begin() {
  const { t } = useTranslation();
  return (
    <div className={styles.nothing}>
      <div className={styles.begin}>
        <h1>{t("rooms.begin")}</h1>
        {STEPS.map(({ tab, icon: Icon, title, hint }) => (
          <button key={tab} type="button" className={styles.step} onClick={() => openNewChat(tab)}>
            <Icon size={24} aria-hidden="true" />
            <span>
              <b>{t(title)}</b>
              <span>{t(hint)}</span>
            </span>
          </button>
        ))}
      </div>
    </div>
  );
}

/** On a new device: encrypted chats need the recovery code. */
function LockedBar() {
  const { t } = useTranslation();
  const locked = useSecrecy((state) => state.state === "locked");
  const [later, setLater] = useState(false);
  const route = useRoute();
  if (!locked || later || route.view === "settings") return null;
  return (
    <div className={styles.locked} role="status">
      <IconLock size={17} aria-hidden="true" />
      <span>{t("e2ee.lockedTitle")}</span>
      <Button size="compact-sm" variant="light" onClick={() => go({ view: "settings" })}>
        {t("e2ee.unlock")}
      </Button>
      <Button size="compact-sm" variant="subtle" color="gray" onClick={() => setLater(true)}>
        {t("e2ee.later")}
      </Button>
    </div>
  );
}

/** The number of chats with unread messages stands in the title of the tab. */
function useTitle(): void {
  const unread = useRoomList().filter((room) => room.unread > 0 && !room.muted).length;
  useEffect(() => {
    document.title = unread ? `(${unread}) Konvert` : "Konvert";
  }, [unread]);
}

/** A wide screen of a demo opens the demo's room at once. */
function useFirstRoom(route: Route): void {
  const loaded = useRooms((state) => state.loaded);
  useEffect(() => {
    const { room } = runtime();
    if (!loaded || !room || route.view !== "rooms" || location.hash) return;
    if (useRooms.getState().rooms[room] && matchMedia("(min-width: 761px)").matches)
      go({ view: "room", room }, { replace: true });
  }, [loaded, route.view]);
}
