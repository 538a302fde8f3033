// The field for a new message: text with drafts, reply, edit, files, emoji and mentions. Enter sends, Shift+Enter makes
// a line break, Escape leaves a reply or an edit, the up arrow in an empty field edits one's last message.

import { ActionIcon, Menu } from "@mantine/core";
import { IconChartBar, IconCheck, IconFile, IconMoodSmile, IconPaperclip, IconSend2 } from "@tabler/icons-react";
import {
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
  type ClipboardEvent,
  type FormEvent,
  type KeyboardEvent,
} from "react";
import { useTranslation } from "react-i18next";
import { clearDraft, draftOf, keepDraft, useDraft } from "@/model/drafts";
import type { RoomView } from "@/model/rooms";
import { edit, send } from "@/model/sending";
import { lastOwnMessage } from "@/model/timeline";
import { signalTyping } from "@/model/typing";
import { ComposerContext } from "./ComposerContext";
import { EmojiPicker } from "./EmojiPicker";
import { FileTray, tooLarge } from "./FileTray";
import { openNewPoll } from "./newPoll";
import { completeMention, mentionAt, mentionedIn, MentionList, useMentionMatches } from "./mentions";
import styles from "./Composer.module.css";

const LONGEST = 16_000;

interface Props {
  room: RoomView;
  files: readonly File[];
  onFiles: (files: readonly File[]) => void;
}

export function Composer({ room, files, onFiles }: Props) {
  const { t } = useTranslation();
  const draft = useDraft(room.id);
  const field = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const [caret, setCaret] = useState(0);
  const [choice, setChoice] = useState(0);
  const [closed, setClosed] = useState("");
  const query = mentionAt(draft.text, caret);
  const matches = useMentionMatches(room, query === closed ? null : query);
  const filled = draft.text.trim() !== "" || files.length > 0;

  useLayoutEffect(() => {
    if (!field.current) return;
    field.current.style.height = "auto";
    field.current.style.height = `${Math.min(field.current.scrollHeight, 200)}px`;
  }, [draft.text]);

  // On a phone the keyboard would cover the messages, so the field waits for a tap.
  useEffect(() => {
    if (matchMedia("(hover: hover)").matches) field.current?.focus();
  }, [room.id]);

  function write(text: string, at?: number) {
    keepDraft(room.id, { ...draftOf(room.id), text });
    setChoice(0);
    setClosed("");
    if (text && !draft.editing) signalTyping(room.id);
    if (at === undefined) return;
    requestAnimationFrame(() => {
      field.current?.focus();
      field.current?.setSelectionRange(at, at);
      setCaret(at);
    });
  }

  function insert(piece: string) {
    const at = field.current?.selectionStart ?? draft.text.length;
    write(draft.text.slice(0, at) + piece + draft.text.slice(at), at + piece.length);
  }

  function pick(index: number) {
    const person = matches[index];
    if (!person) return;
    const { text, at } = completeMention(draft.text, caret, person);
    write(text, at);
  }

  function submit(event?: FormEvent) {
    event?.preventDefault();
    if (!filled) return;
    const text = draft.text.trim();
    if (draft.editing) {
      if (text) void edit(room.id, draft.editing, text);
    } else {
      void send(room.id, text, { replyTo: draft.replyTo, files, mentions: mentionedIn(room, text) });
      onFiles([]);
    }
    clearDraft(room.id);
    field.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent<HTMLTextAreaElement>) {
    if (event.nativeEvent.isComposing) return; // an input method is choosing a character
    if (matches.length) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) {
        event.preventDefault();
        return setChoice((choice + step + matches.length) % matches.length);
      }
      if (event.key === "Enter" || event.key === "Tab") {
        event.preventDefault();
        return pick(choice);
      }
      if (event.key === "Escape") return setClosed(query ?? "");
    }
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && (draft.editing || draft.replyTo)) {
      keepDraft(room.id, { text: draft.editing ? "" : draft.text });
    } else if (event.key === "ArrowUp" && !draft.text && !draft.editing) {
      const last = lastOwnMessage(room.id);
      if (!last?.text) return;
      event.preventDefault();
      keepDraft(room.id, { text: last.text, editing: last.id });
    }
  }

  function add(list: FileList | null) {
    const chosen = [...(list ?? [])].filter((file) => !tooLarge(file, t));
    if (chosen.length) onFiles([...files, ...chosen].slice(0, 10));
    field.current?.focus();
  }

  function onPaste(event: ClipboardEvent) {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    add(event.clipboardData.files);
  }

  return (
    <form className={styles.composer} onSubmit={submit}>
      <ComposerContext room={room} draft={draft} />
      <FileTray files={files} onRemove={(file) => onFiles(files.filter((one) => one !== file))} />
      {matches.length > 0 && <MentionList people={matches} choice={choice} onPick={pick} />}
      <div className={styles.line}>
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          onChange={(event) => {
            add(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
        <Menu position="top-start">
          <Menu.Target>
            <ActionIcon
              size={40}
              radius="xl"
              aria-label={t("chat.attach")}
              title={t("chat.attach")}
              disabled={draft.editing !== undefined}
            >
              <IconPaperclip size={21} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item leftSection={<IconFile size={18} />} onClick={() => picker.current?.click()}>
              {t("chat.attachFile")}
            </Menu.Item>
            <Menu.Item leftSection={<IconChartBar size={18} />} onClick={() => openNewPoll(room.id)}>
              {t("poll.menu")}
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
        <textarea
          ref={field}
          data-composer
          className={styles.field}
          rows={1}
          maxLength={LONGEST}
          value={draft.text}
          placeholder={t("chat.write")}
          aria-label={t("chat.write")}
          aria-autocomplete="list"
          aria-controls={matches.length ? "mentions" : undefined}
          aria-activedescendant={matches.length ? `mention-${choice}` : undefined}
          onChange={(event) => {
            setCaret(event.currentTarget.selectionStart);
            write(event.currentTarget.value);
          }}
          onSelect={(event) => setCaret(event.currentTarget.selectionStart)}
          onKeyDown={onKeyDown}
          onPaste={onPaste}
        />
        <EmojiPicker
          label={t("chat.emoji")}
          onPick={insert}
          target={(toggle) => (
            <ActionIcon size={40} radius="xl" aria-label={t("chat.emoji")} title={t("chat.emoji")} onClick={toggle}>
              <IconMoodSmile size={21} />
            </ActionIcon>
          )}
        />
        <ActionIcon
          type="submit"
          size={40}
          radius="xl"
          variant="filled"
          color="accent"
          aria-label={t(draft.editing ? "compose.save" : "chat.send")}
          title={t(draft.editing ? "compose.save" : "chat.sendHint")}
          disabled={!filled}
        >
          {draft.editing ? <IconCheck size={20} /> : <IconSend2 size={20} />}
        </ActionIcon>
      </div>
    </form>
  );
}
