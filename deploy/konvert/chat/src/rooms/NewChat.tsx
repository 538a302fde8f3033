// The dialog for a new chat: with a person, a new room, or a public room to join.

import { Button, Modal, SegmentedControl, Stack, Tabs, TextInput } from "@mantine/core";
import { IconHash, IconLock, IconSearch } from "@tabler/icons-react";
import { useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { backend } from "@/model/backend";
import { attempt } from "@/model/problems";
import { joinRoom, putRoom, useRoomList } from "@/model/rooms";
import { shareKeys, keyringForWriting } from "@/model/secrecy";
import { PeoplePicker } from "@/people/PeoplePicker";
import { RoomAvatar } from "./RoomItem";
import { closeNewChat, openDirect, useNewChat } from "./newChat";
import { PersonLine } from "@/people/PersonLine";
import { usePeopleSearch } from "./FoundPeople";
import { isEncrypted } from "@/model/secrecy";
import styles from "./NewChat.module.css";

export default function NewChat() {
  const { t } = useTranslation();
  const { opened, tab } = useNewChat();
  return (
    <Modal
      opened={opened}
      onClose={closeNewChat}
      title={t("new.title")}
      closeButtonProps={{ "aria-label": t("do.close") }}
    >
      <Tabs defaultValue={tab} keepMounted={false}>
        <Tabs.List grow>
          <Tabs.Tab value="direct">{t("new.direct")}</Tabs.Tab>
          <Tabs.Tab value="room">{t("new.room")}</Tabs.Tab>
          <Tabs.Tab value="join">{t("new.join")}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="direct" pt="md">
          <Direct />
        </Tabs.Panel>
        <Tabs.Panel value="room" pt="md">
          <NewRoom />
        </Tabs.Panel>
        <Tabs.Panel value="join" pt="md">
          <PublicRooms />
        </Tabs.Panel>
      </Tabs>
    </Modal>
  );
}

function Direct() {
  const { t } = useTranslation();
  const [query, setQuery] = useState("");
  const found = usePeopleSearch(query);
  return (
    <Stack gap="xs">
      <TextInput
        data-autofocus
        label={t("new.find")}
        leftSection={<IconSearch size={16} />}
        value={query}
        onChange={(event) => setQuery(event.currentTarget.value)}
      />
      <div className={styles.list}>
        {found?.map((person) => (
          <PersonLine key={person.id} person={person} onClick={() => void openDirect(person.id)} />
        ))}
        {!found && <p className={styles.hint}>{t("new.findHint")}</p>}
        {found?.length === 0 && <p className={styles.hint}>{t("new.nobody")}</p>}
      </div>
    </Stack>
  );
}

function NewRoom() {
  const { t } = useTranslation();
  const [name, setName] = useState("");
  const [type, setType] = useState<"private" | "public">("private");
  const [members, setMembers] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);

  async function create(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    await attempt(async () => {
      const { room } = await backend().createRoom(name.trim(), type, members);
      putRoom(room);
      if (isEncrypted(room)) void keyringForWriting(room.id).then(() => shareKeys(room.id));
      closeNewChat();
      go({ view: "room", room: room.id });
    });
    setBusy(false);
  }

  return (
    <form onSubmit={(event) => void create(event)}>
      <Stack gap="md">
        <TextInput
          data-autofocus
          label={t("new.name")}
          placeholder={t("new.namePlaceholder")}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          required
          maxLength={100}
        />
        <div>
          <p className={styles.label} id="new-access">
            {t("new.access")}
          </p>
          <SegmentedControl
            fullWidth
            aria-labelledby="new-access"
            value={type}
            onChange={(value) => setType(value as typeof type)}
            data={[
              { value: "private", label: <Choice icon={<IconLock size={15} />} text={t("new.private")} /> },
              { value: "public", label: <Choice icon={<IconHash size={15} />} text={t("new.public")} /> },
            ]}
          />
          <p className={styles.hint}>{t(type === "private" ? "new.privateHint" : "new.publicHint")}</p>
        </div>
        <PeoplePicker label={t("new.members")} chosen={members} onChange={setMembers} />
        <Button type="submit" loading={busy} disabled={!name.trim()}>
          {t("new.create")}
        </Button>
      </Stack>
    </form>
  );
}

const Choice = ({ icon, text }: { icon: React.ReactNode; text: string }) => (
  <span className={styles.choice}>
    {icon} {text}
  </span>
);

function PublicRooms() {
  const { t } = useTranslation();
  const rooms = useRoomList().filter((room) => room.type === "public" && !room.member);
  if (!rooms.length) return <p className={styles.hint}>{t("new.noPublic")}</p>;
  return (
    <div className={styles.list}>
      {rooms.map((room) => (
        <div key={room.id} className={styles.room}>
          <RoomAvatar room={room} size={38} />
          <span className={styles.roomName}>
            <b>{room.name}</b>
            <span>{t("chat.members", { count: room.member_count })}</span>
          </span>
          <Button
            size="xs"
            variant="light"
            onClick={() =>
              void joinRoom(room.id).then((joined) => {
                if (joined) {
                  closeNewChat();
                  go({ view: "room", room: room.id });
                }
              })
            }
          >
            {t("rooms.join")}
          </Button>
        </div>
      ))}
    </div>
  );
}
