// The dialog of a question with two answers.

import { Button, Group, Modal } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { useQuestion } from "@/model/questions";
import styles from "./confirm.module.css";

export function Confirm() {
  const { t } = useTranslation();
  const question = useQuestion((state) => state.question);
  const answer = (yes: boolean) => {
    question?.answer(yes);
    useQuestion.setState({ question: null });
  };
  return (
    <Modal
      opened={question !== null}
      onClose={() => answer(false)}
      title={question?.text}
      closeButtonProps={{ "aria-label": t("do.close") }}
      size="sm"
    >
      {question?.hint && <p className={styles.hint}>{question.hint}</p>}
      <Group justify="flex-end" mt="md">
        <Button variant="default" onClick={() => answer(false)}>
          {t("do.cancel")}
        </Button>
        <Button color="red.8" onClick={() => answer(true)} data-autofocus>
          {question?.action}
        </Button>
      </Group>
    </Modal>
  );
}
