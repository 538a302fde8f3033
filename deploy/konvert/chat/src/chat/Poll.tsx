// A poll in its message: the options with their votes; a click votes, a click on the own choice withdraws the vote.

import { IconCheck, IconEyeOff } from "@tabler/icons-react";
import { Tooltip, VisuallyHidden } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { nameOf, usePeople } from "@/model/people";
import { usePoll, vote } from "@/model/polls";
import type { RoomView } from "@/model/rooms";
import type { ShownMessage } from "@/model/timeline";
import { RichText } from "./RichText";
import styles from "./Poll.module.css";

export function Poll({ message, room }: { message: ShownMessage; room: RoomView }) {
  const { t } = useTranslation();
  const poll = usePoll(message.id);
  const people = usePeople((state) => state.people);
  const [busy, setBusy] = useState(false);
  if (!poll || poll === "missing") return <RichText text={message.text ?? ""} mentions={[]} />;
  const total = poll.options.reduce((sum, { count }) => sum + count, 0);

  async function choose(option: number) {
    if (!poll || poll === "missing") return;
    setBusy(true);
    await vote(poll, option);
    setBusy(false);
  }

  return (
    <div className={styles.poll} role="group" aria-label={t("poll.label", { question: poll.question })}>
      <p className={styles.question}>{poll.question}</p>
      <p className={styles.kind}>
        {poll.anonymous && <IconEyeOff size={14} aria-hidden="true" />}
        {t(poll.anonymous ? "poll.anonymous" : "poll.open")}
      </p>
      {poll.options.map(({ text, count, votes }, index) => {
        const mine = poll.my_vote === index;
        const share = total ? Math.round((count / total) * 100) : 0;
        const names = votes.map((id) => nameOf(people[id])).filter(Boolean);
        return (
          <Tooltip key={text + String(index)} label={names.slice(0, 20).join(", ")} disabled={!names.length}>
            <button
              type="button"
              className={styles.option}
              data-mine={mine || undefined}
              aria-pressed={mine}
              disabled={busy || !room.mayWrite}
              onClick={() => void choose(index)}
            >
              <span className={styles.bar} style={{ width: `${share}%` }} />
              <span className={styles.mark}>{mine && <IconCheck size={13} aria-hidden="true" />}</span>
              <span className={styles.text}>{text}</span>
              {total > 0 && (
                <span className={styles.share}>
                  {share} %<VisuallyHidden>, {t("poll.votes", { count })}</VisuallyHidden>
                </span>
              )}
            </button>
          </Tooltip>
        );
      })}
      <p className={styles.kind}>
        {total ? t("poll.votes", { count: total }) : t("poll.noVotes")}
        {poll.my_vote !== undefined && room.mayWrite && ` · ${t("poll.withdraw")}`}
      </p>
    </div>
  );
}
