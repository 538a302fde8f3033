// The dialog that chooses the chat to which a message is forwarded.

import { Modal, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { forward } from "@/model/actions";
import { useRoomList, type RoomView } from "@/model/rooms";
import { RoomAvatar, RoomIcon, useRoomName } from "@/rooms/RoomItem";
import { notify } from "@/model/notices";
import { closeForward, useForward } from "./forward";
import lines from "@/people/PersonLine.module.css";
import styles from "@/rooms/NewChat.module.css";

export default function Forward() {
  const { t } = useTranslation();
  const message = useForward((state) => state.message);
  const [filter, setFilter] = useState("");
  const rooms = useRoomList().filter(
    (room) => room.mayWrite && room.name.toLowerCase().includes(filter.trim().toLowerCase()),
  );

  async function choose(room: RoomView, name: string) {
    if (!message) return;
    closeForward();
    if (await forward(message, room.id)) notify(t("forward.done", { name }));
  }

  return (
    <Modal
      opened={message !== null}
      onClose={closeForward}
      title={t("forward.title")}
      closeButtonProps={{ "aria-label": t("do.close") }}
    >
      <TextInput
        data-autofocus
        aria-label={t("rooms.filter")}
        placeholder={t("rooms.filter")}
        leftSection={<IconSearch size={16} />}
        value={filter}
        onChange={(event) => setFilter(event.currentTarget.value)}
        mb="xs"
      />
      <div className={styles.list}>
        {rooms.map((room) => (
          <Target key={room.id} room={room} onChoose={(name) => void choose(room, name)} />
        ))}
      </div>
    </Modal>
  );
}

function Target({ room, onChoose }: { room: RoomView; onChoose: (name: string) => void }) {
  const name = useRoomName(room);
  return (
    <button type="button" className={lines.main} style={{ width: "100%" }} onClick={() => onChoose(name)}>
      <RoomAvatar room={room} size={38} />
      <span className={lines.name}>
        <RoomIcon room={room} />
        <span className={lines.nameText}>{name}</span>
      </span>
    </button>
  );
}
