// The dialog that adds people to a room.

import { Button, Group, Modal } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { backend } from "@/model/backend";
import { nameOf, personNow } from "@/model/people";
import { attempt } from "@/model/problems";
import { loadMembers, useMembers, useRoom } from "@/model/rooms";
import { shareKeys } from "@/model/secrecy";
import { notify } from "@/model/notices";
import { closeInvite, useInvite } from "./invite";
import { PeoplePicker } from "./PeoplePicker";

export default function Invite() {
  const { t } = useTranslation();
  const roomId = useInvite((state) => state.room);
  const room = useRoom(roomId ?? "");
  const members = useMembers(roomId ?? "");
  const [chosen, setChosen] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);

  async function invite() {
    if (!room) return;
    setBusy(true);
    for (const id of chosen) {
      const done = await attempt(() => backend().inviteToRoom(room.id, id));
      if (done) notify(t("members.invited", { name: nameOf(personNow(id)) }));
    }
    setBusy(false);
    setChosen([]);
    closeInvite();
    void loadMembers(room.id).catch(() => undefined);
    if (room.encrypted) void shareKeys(room.id);
  }

  return (
    <Modal
      opened={room !== undefined}
      onClose={closeInvite}
      title={t("members.inviteTitle", { name: room?.name })}
      closeButtonProps={{ "aria-label": t("do.close") }}
    >
      <PeoplePicker
        label={t("new.members")}
        chosen={chosen}
        onChange={setChosen}
        without={members?.map(({ user }) => user.id) ?? room?.members ?? []}
      />
      <Group justify="flex-end" mt="md">
        <Button variant="default" onClick={closeInvite}>
          {t("do.cancel")}
        </Button>
        <Button onClick={() => void invite()} loading={busy} disabled={!chosen.length}>
          {t("members.invite")}
        </Button>
      </Group>
    </Modal>
  );
}
