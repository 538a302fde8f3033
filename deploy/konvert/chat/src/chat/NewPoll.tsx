// The dialog for a new poll: question, options, anonymous or not.

import { ActionIcon, Button, Checkbox, Modal, Stack, TextInput } from "@mantine/core";
import { IconPlus, IconX } from "@tabler/icons-react";
import { useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { createPoll } from "@/model/polls";
import { useRoom } from "@/model/rooms";
import { closeNewPoll, useNewPoll } from "./newPoll";
import styles from "./NewPoll.module.css";

const MOST_OPTIONS = 20;

export default function NewPoll() {
  const { t } = useTranslation();
  const room = useNewPoll((state) => state.room);
  return (
    <Modal
      opened={room !== null}
      onClose={closeNewPoll}
      title={t("poll.new")}
      closeButtonProps={{ "aria-label": t("do.close") }}
    >
      {room && <Form key={room} roomId={room} />}
    </Modal>
  );
}

function Form({ roomId }: { roomId: string }) {
  const { t } = useTranslation();
  const room = useRoom(roomId);
  const [question, setQuestion] = useState("");
  const [options, setOptions] = useState(["", ""]);
  const [anonymous, setAnonymous] = useState(false);
  const [busy, setBusy] = useState(false);
  const filled = options.map((option) => option.trim()).filter(Boolean);

  async function create(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    if (await createPoll(roomId, question.trim(), filled, anonymous)) closeNewPoll();
    setBusy(false);
  }

  return (
    <form onSubmit={(event) => void create(event)}>
      <Stack gap="md">
        <TextInput
          data-autofocus
          label={t("poll.question")}
          placeholder={t("poll.questionPlaceholder")}
          value={question}
          onChange={(event) => setQuestion(event.currentTarget.value)}
          maxLength={500}
          required
        />
        <div className={styles.options}>
          {options.map((option, index) => (
            <div key={index} className={styles.option}>
              <TextInput
                className={styles.field}
                aria-label={t("poll.optionNumber", { number: index + 1 })}
                placeholder={t("poll.optionNumber", { number: index + 1 })}
                value={option}
                onChange={(event) => {
                  const value = event.currentTarget.value;
                  setOptions((before) => before.map((one, at) => (at === index ? value : one)));
                }}
                maxLength={200}
              />
              {options.length > 2 && (
                <ActionIcon
                  aria-label={t("poll.removeOption", { number: index + 1 })}
                  onClick={() => setOptions((before) => before.filter((_, at) => at !== index))}
                >
                  <IconX size={17} />
                </ActionIcon>
              )}
            </div>
          ))}
          {options.length < MOST_OPTIONS && (
            <Button
              className={styles.add}
              size="xs"
              variant="subtle"
              leftSection={<IconPlus size={16} />}
              onClick={() => setOptions((before) => [...before, ""])}
            >
              {t("poll.addOption")}
            </Button>
          )}
        </div>
        <Checkbox
          label={t("poll.anonymousChoice")}
          checked={anonymous}
          onChange={(event) => setAnonymous(event.currentTarget.checked)}
        />
        {room?.encrypted && <p className={styles.hint}>{t("poll.notEncrypted")}</p>}
        <Button type="submit" loading={busy} disabled={!question.trim() || filled.length < 2}>
          {t("poll.create")}
        </Button>
      </Stack>
    </form>
  );
}
