// One row of the timeline: date, "New messages", and the message in its bubble with reactions and actions.

import { memo, useState, type KeyboardEvent, type MouseEvent } from "react";
import { useTranslation } from "react-i18next";
import { showBlocked } from "@/model/blocked";
import { nameOf, usePerson } from "@/model/people";
import type { RoomView } from "@/model/rooms";
import { clock, dayName } from "@/model/times";
import { Avatar, colourOf } from "@/widgets/Avatar";
import { openProfile } from "@/people/profile";
import { Bubble } from "./Bubble";
import { MessageActions } from "./MessageActions";
import { Reactions } from "./Reactions";
import type { Row } from "./rows";
import styles from "./MessageRow.module.css";

interface Props {
  row: Row;
  index: number;
  room: RoomView;
  highlighted: boolean;
}

export const MessageRow = memo(function MessageRow({ row, index, room, highlighted }: Props) {
  const { t } = useTranslation();
  const { message, first, last, newDay, firstUnread, begin, hidden } = row;
  const author = usePerson(message.sender_id);
  const [active, setActive] = useState(false);
  const [menu, setMenu] = useState(false);
  const name = message.mine
    ? t("chat.you")
    : nameOf(author) || message.sender_display_name || message.sender_username || t("chat.someone");
  const showAuthor = !message.mine && room.type !== "dm";

  function onKeyDown(event: KeyboardEvent) {
    if (event.target !== event.currentTarget || (event.key !== "Enter" && event.key !== "ContextMenu")) return;
    event.preventDefault();
    setActive(true);
    setMenu(true);
  }

  function onContextMenu(event: MouseEvent) {
    if (message.state || getSelection()?.toString()) return; // the browser's menu copies a selected text
    event.preventDefault();
    setActive(true);
    setMenu(true);
  }

  return (
    <div className={styles.row} data-mine={message.mine || undefined} data-first={first || undefined}>
      {begin && <p className={styles.begin}>{t("chat.begin")}</p>}
      {newDay && (
        <p className={styles.day}>
          <span>{dayName(message.created_at, { today: t("chat.today"), yesterday: t("chat.yesterday") })}</span>
        </p>
      )}
      {firstUnread && (
        <p className={styles.unread}>
          <span>{t("chat.unreadLine")}</span>
        </p>
      )}
      {hidden > 0 ? (
        <p className={styles.hidden} data-index={index} data-hidden={hidden}>
          {t("chat.blockedLine", { count: hidden })}
          <button type="button" onClick={() => showBlocked(room.id)}>
            {t("chat.blockedShow")}
          </button>
        </p>
      ) : (
        <article
          className={styles.message}
          data-index={index}
          data-message={message.id}
          data-state={message.state ?? "sent"}
          data-highlighted={highlighted || undefined}
          tabIndex={-1}
          aria-label={t("message.by", { name, time: clock(message.created_at) })}
          onPointerEnter={(event) => event.pointerType === "mouse" && setActive(true)}
          onPointerLeave={(event) => event.pointerType === "mouse" && !menu && setActive(false)}
          onClick={(event) => {
            // A tap shows the actions on touch screens, where nothing hovers.
            if ((event.target as HTMLElement).closest("button, a, img, video")) return;
            if ((event.nativeEvent as PointerEvent).pointerType === "touch") setActive((shown) => !shown);
          }}
          onFocus={() => setActive(true)}
          onBlur={(event) => !menu && !event.currentTarget.contains(event.relatedTarget) && setActive(false)}
          onKeyDown={onKeyDown}
          onContextMenu={onContextMenu}
        >
          {showAuthor && (
            <div className={styles.picture}>
              {last && (
                <button
                  type="button"
                  tabIndex={-1}
                  className={styles.person}
                  onClick={() => openProfile(message.sender_id)}
                  aria-label={name}
                >
                  <Avatar id={message.sender_id} name={name} url={author?.avatar_url} size={34} />
                </button>
              )}
            </div>
          )}
          <div className={styles.content}>
            <Bubble message={message} room={room} tail={last}>
              {showAuthor && first && (
                <button
                  type="button"
                  tabIndex={-1}
                  className={styles.author}
                  style={{ "--author": colourOf(message.sender_id) } as React.CSSProperties}
                  onClick={() => openProfile(message.sender_id)}
                >
                  {name}
                </button>
              )}
            </Bubble>
            <Reactions message={message} room={room} />
            {active && !message.state && (
              <MessageActions
                message={message}
                room={room}
                menu={menu}
                onMenu={(open) => {
                  setMenu(open);
                  if (!open) setActive(false);
                }}
              />
            )}
          </div>
        </article>
      )}
    </div>
  );
});
