// Actions of a message: quick reactions and reply in a small bar, everything else in a menu.

import { ActionIcon, Menu } from "@mantine/core";
import {
  IconArrowBackUp,
  IconArrowForwardUp,
  IconCopy,
  IconDots,
  IconMoodPlus,
  IconPencil,
  IconPin,
  IconPinnedOff,
  IconTrash,
} from "@tabler/icons-react";
import { useTranslation } from "react-i18next";
import { copyText, pin, react, remove, unpin } from "@/model/actions";
import { draftOf, keepDraft } from "@/model/drafts";
import type { RoomView } from "@/model/rooms";
import type { ShownMessage } from "@/model/timeline";
import { openForward } from "./forward";
import { EmojiPicker } from "./EmojiPicker";
import { QUICK } from "./emoji";
import { focusComposer } from "./focus";
import styles from "./MessageActions.module.css";

interface Props {
  message: ShownMessage;
  room: RoomView;
  menu: boolean;
  onMenu: (open: boolean) => void;
}

export function MessageActions({ message, room, menu, onMenu }: Props) {
  const { t } = useTranslation();
  const pinned = room.pinned.includes(message.id);
  const readable = message.text !== null;
  const reply = () => {
    keepDraft(room.id, { text: draftOf(room.id).editing ? "" : draftOf(room.id).text, replyTo: message.id });
    focusComposer();
  };
  const edit = () => {
    keepDraft(room.id, { text: message.text ?? "", editing: message.id });
    focusComposer();
  };
  return (
    <div className={styles.bar} data-mine={message.mine || undefined} role="toolbar" aria-label={t("message.more")}>
      {room.mayWrite && (
        <>
          {QUICK.map((emoji) => (
            <button
              key={emoji}
              type="button"
              className={styles.quick}
              aria-label={`${t("message.react")}: ${emoji}`}
              onClick={() => void react(message, emoji)}
            >
              {emoji}
            </button>
          ))}
          <EmojiPicker
            label={t("message.react")}
            onPick={(emoji) => void react(message, emoji)}
            target={(toggle) => (
              <ActionIcon size={30} aria-label={t("message.react")} onClick={toggle}>
                <IconMoodPlus size={18} />
              </ActionIcon>
            )}
          />
          <ActionIcon size={30} aria-label={t("message.reply")} title={t("message.reply")} onClick={reply}>
            <IconArrowBackUp size={18} />
          </ActionIcon>
        </>
      )}
      <Menu opened={menu} onChange={onMenu} withinPortal returnFocus>
        <Menu.Target>
          <ActionIcon size={30} aria-label={t("message.more")}>
            <IconDots size={18} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          {room.mayWrite && (
            <Menu.Item leftSection={<IconArrowBackUp size={17} />} onClick={reply}>
              {t("message.reply")}
            </Menu.Item>
          )}
          {message.mine && readable && room.mayWrite && message.type !== "poll" && (
            <Menu.Item leftSection={<IconPencil size={17} />} onClick={edit}>
              {t("message.edit")}
            </Menu.Item>
          )}
          {readable && message.text && (
            <Menu.Item leftSection={<IconCopy size={17} />} onClick={() => void copyText(message.text ?? "")}>
              {t("message.copy")}
            </Menu.Item>
          )}
          {room.mayPin && (
            <Menu.Item
              leftSection={pinned ? <IconPinnedOff size={17} /> : <IconPin size={17} />}
              onClick={() => void (pinned ? unpin(room.id, message.id) : pin(room.id, message.id))}
            >
              {t(pinned ? "chat.unpin" : "message.pin")}
            </Menu.Item>
          )}
          {readable && message.type !== "poll" && (
            <Menu.Item leftSection={<IconArrowForwardUp size={17} />} onClick={() => openForward(message)}>
              {t("message.forward")}
            </Menu.Item>
          )}
          {(message.mine || room.moderator) && room.member && (
            <>
              <Menu.Divider />
              <Menu.Item
                className="k-danger"
                leftSection={<IconTrash size={17} />}
                onClick={() => void remove(message)}
              >
                {t("message.delete")}
              </Menu.Item>
            </>
          )}
        </Menu.Dropdown>
      </Menu>
    </div>
  );
}
