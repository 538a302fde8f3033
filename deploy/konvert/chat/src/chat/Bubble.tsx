// The bubble of a message: forwarded mark, quoted message, files, text, time and state.

import { Button, Tooltip } from "@mantine/core";
import {
  IconAlertCircle,
  IconArrowForwardUp,
  IconCheck,
  IconClock,
  IconLock,
  IconPinFilled,
} from "@tabler/icons-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { nameOf, usePerson } from "@/model/people";
import type { RoomView } from "@/model/rooms";
import { discard, retry } from "@/model/sending";
import { useMessage, type ShownMessage } from "@/model/timeline";
import { clock, moment } from "@/model/times";
import { Attachment } from "./Attachment";
import { Poll } from "./Poll";
import { RichText } from "./RichText";
import { summary } from "./summary";
import styles from "./Bubble.module.css";

interface Props {
  message: ShownMessage;
  room: RoomView;
  /** The last of its group has the corner that points to the author. */
  tail: boolean;
  /** The author's name. */
  children?: ReactNode;
}

export function Bubble({ message, room, tail, children }: Props) {
  const { t } = useTranslation();
  const locked = message.text === null;
  const large =
    !message.attachments.length &&
    message.text !== null &&
    /^(\p{Extended_Pictographic}|\uFE0F|\u200D|\s){1,8}$/u.test(message.text);
  return (
    <div
      className={styles.bubble}
      data-mine={message.mine || undefined}
      data-tail={tail || undefined}
      data-failed={message.state === "failed" || undefined}
    >
      {children}
      {message.forwarded && (
        <p className={styles.forwarded}>
          <IconArrowForwardUp size={14} aria-hidden="true" /> {t("message.forwarded")}
        </p>
      )}
      {message.reply_to && <Quote id={message.reply_to} room={room} />}
      {message.attachments.map((file) => (
        <Attachment key={file.key} file={file} message={message} />
      ))}
      {locked ? (
        <p className={styles.locked} title={t("message.lockedHint")}>
          <IconLock size={15} aria-hidden="true" /> {t("message.locked")}
        </p>
      ) : (
        message.text && (
          <div data-body className={large ? styles.large : styles.text}>
            {message.type === "poll" ? (
              <Poll message={message} room={room} />
            ) : (
              <RichText text={message.text} mentions={message.mentions ?? []} />
            )}
          </div>
        )
      )}
      <Foot message={message} room={room} />
      {message.state === "failed" && (
        <div className={styles.failed} role="group" aria-label={t("message.failed")}>
          <span>{message.problem ?? t("message.failed")}</span>
          <Button size="compact-xs" variant="light" onClick={() => retry(message)}>
            {t("message.retry")}
          </Button>
          <Button size="compact-xs" variant="subtle" color="red" className="k-danger" onClick={() => discard(message)}>
            {t("message.discard")}
          </Button>
        </div>
      )}
    </div>
  );
}

function Foot({ message, room }: { message: ShownMessage; room: RoomView }) {
  const { t } = useTranslation();
  const pinned = room.pinned.includes(message.id);
  return (
    <span className={styles.foot}>
      {pinned && <IconPinFilled size={12} aria-label={t("chat.pinned")} role="img" />}
      {message.encrypted && <IconLock size={12} aria-label={t("message.encrypted")} role="img" />}
      {message.edited && <span>{t("message.edited")}</span>}
      <Tooltip label={moment(message.created_at)}>
        <time dateTime={message.created_at}>{clock(message.created_at)}</time>
      </Tooltip>
      {message.mine && <State state={message.state} />}
    </span>
  );
}

function State({ state }: { state: ShownMessage["state"] }) {
  const { t } = useTranslation();
  if (state === "pending") return <IconClock size={13} role="img" aria-label={t("message.pending")} />;
  if (state === "failed")
    return <IconAlertCircle size={14} role="img" aria-label={t("message.failed")} className={styles.bad} />;
  return <IconCheck size={14} role="img" aria-label={t("message.sent")} />;
}

/** The message that this one answers; a click leads there. */
function Quote({ id, room }: { id: string; room: RoomView }) {
  const { t } = useTranslation();
  const original = useMessage(room.id, id);
  const author = usePerson(original?.sender_id ?? "");
  const name = original?.mine ? t("chat.you") : nameOf(author) || original?.sender_username || "";
  return (
    <button
      type="button"
      className={styles.quote}
      onClick={() => original && go({ view: "room", room: room.id, message: id })}
    >
      <span className={styles.quoteName}>{original ? name : t("message.reply")}</span>
      <span className={styles.quoteText}>{original ? summary(original, t) : t("message.gone")}</span>
    </button>
  );
}
