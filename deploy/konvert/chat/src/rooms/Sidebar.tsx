// The left column: one's own picture with the menu, search, the list of chats.

import { ActionIcon, Button, CloseButton, TextInput } from "@mantine/core";
import { IconBell, IconMessagePlus, IconMessages, IconSearch } from "@tabler/icons-react";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";
import { go, useRoute } from "@/app/route";
import { useUnreadNotifications } from "@/model/notifications";
import { useRoomList, useRooms } from "@/model/rooms";
import { EmptyState } from "@/widgets/EmptyState";
import { FoundPeople } from "./FoundPeople";
import { MainMenu } from "./MainMenu";
import { openNewChat } from "./newChat";
import { RoomItem } from "./RoomItem";
import styles from "./Sidebar.module.css";

export function Sidebar({ open }: { open: string | null }) {
  const { t } = useTranslation();
  const rooms = useRoomList();
  const loaded = useRooms((state) => state.loaded);
  const [filter, setFilter] = useState("");
  const wanted = filter.trim().toLowerCase();
  const shown = useMemo(
    () => rooms.filter((room) => (wanted ? room.name.toLowerCase().includes(wanted) : room.member)),
    [rooms, wanted],
  );
  return (
    <nav className={styles.sidebar} aria-label={t("rooms.title")}>
      <header className={styles.head}>
        <MainMenu />
        <TextInput
          className={styles.search}
          value={filter}
          onChange={(event) => setFilter(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Escape" && setFilter("")}
          placeholder={t("rooms.filterShort")}
          aria-label={t("rooms.filter")}
          leftSection={<IconSearch size={17} />}
          rightSection={
            filter ? <CloseButton size="sm" aria-label={t("do.close")} onClick={() => setFilter("")} /> : null
          }
          radius="xl"
        />
        <Bell />
        <ActionIcon
          aria-label={t("rooms.new")}
          title={t("rooms.new")}
          size={38}
          radius="xl"
          variant="light"
          color="accent"
          onClick={() => openNewChat()}
        >
          <IconMessagePlus size={20} />
        </ActionIcon>
      </header>
      <div className={styles.scroll}>
        {shown.length > 0 && (
          <ul className={styles.list}>
            {shown.map((room) => (
              <li key={room.id}>
                <RoomItem room={room} current={room.id === open} />
              </li>
            ))}
          </ul>
        )}
        {wanted.length > 1 && <FoundPeople query={wanted} nothingElse={shown.length === 0} />}
        {!wanted && loaded && shown.length === 0 && (
          <EmptyState icon={<IconMessages size={30} />} title={t("rooms.none")} hint={t("rooms.noneHint")}>
            <Button onClick={() => openNewChat()} leftSection={<IconMessagePlus size={18} />}>
              {t("rooms.new")}
            </Button>
          </EmptyState>
        )}
        {!loaded && <ListSkeleton />}
      </div>
    </nav>
  );
}

/** The way to the notifications, with the number of unread ones. */
function Bell() {
  const { t } = useTranslation();
  const unread = useUnreadNotifications();
  const isOpen = useRoute().view === "notifications";
  const label = unread ? `${t("notes.title")}, ${t("notes.unread", { count: unread })}` : t("notes.title");
  return (
    <ActionIcon
      className={styles.bell}
      aria-label={label}
      aria-current={isOpen ? "page" : undefined}
      title={label}
      size={38}
      radius="xl"
      onClick={() => go({ view: isOpen ? "rooms" : "notifications" })}
    >
      <IconBell size={20} />
      {unread > 0 && <span className={styles.bellCount}>{unread > 9 ? "9+" : unread}</span>}
    </ActionIcon>
  );
}

function ListSkeleton() {
  return (
    <div aria-hidden="true">
      {Array.from({ length: 6 }, (_, index) => (
        <div key={index} className={styles.skeleton}>
          <span />
          <p />
        </div>
      ))}
    </div>
  );
}
