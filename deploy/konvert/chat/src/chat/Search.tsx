// Search in messages: the server searches plain texts, this device the encrypted messages that it has loaded.

import { Checkbox, Loader, Modal, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import type { Message } from "konvert-backend-adapter/interface";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { backend } from "@/model/backend";
import { isBlocked } from "@/model/blocked";
import { isSecret } from "@/model/content";
import { nameOf, usePerson } from "@/model/people";
import { useRooms } from "@/model/rooms";
import { shortTime } from "@/model/times";
import { shown, useTimelines, type ShownMessage } from "@/model/timeline";
import { Avatar } from "@/widgets/Avatar";
import { closeSearch, useSearch } from "./search";
import styles from "./Search.module.css";

const SHORTEST = 2;
const MOST = 100;

function searchHere(query: string, room: string | null): ShownMessage[] {
  const wanted = query.toLowerCase();
  return Object.entries(useTimelines.getState().rooms)
    .filter(([id]) => room === null || id === room)
    .flatMap(([, { messages }]) =>
      messages.filter(({ text, encrypted }) => encrypted && text?.toLowerCase().includes(wanted)),
    );
}

function useFound(query: string, room: string | null): { found: readonly ShownMessage[]; busy: boolean } {
  const [result, setResult] = useState<{ found: readonly ShownMessage[]; busy: boolean }>({ found: [], busy: false });
  useEffect(() => {
    if (query.length < SHORTEST) return setResult({ found: [], busy: false });
    const abort = new AbortController();
    const show = (messages: readonly Message[], busy: boolean) => {
      const there = messages.filter(({ content }) => !isSecret(content)).map(shown);
      const all = [...there, ...searchHere(query, room)]
        .filter(({ sender_id }) => !isBlocked(sender_id))
        .sort((a, b) => b.created_at.localeCompare(a.created_at));
      setResult({ found: all.slice(0, MOST), busy });
    };
    show([], true);
    const timer = setTimeout(() => {
      backend()
        .searchMessages(query, { limit: 50, signal: abort.signal, ...(room !== null && { roomId: room }) })
        .then(({ messages }) => show(messages, false))
        .catch(() => !abort.signal.aborted && show([], false)); // offline: what this device has
    }, 250);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [query, room]);
  return result;
}

export default function Search() {
  const { t } = useTranslation();
  const { opened, room } = useSearch();
  const [query, setQuery] = useState("");
  const [here, setHere] = useState(false);
  const wanted = query.trim();
  const { found, busy } = useFound(wanted, here ? room : null);
  return (
    <Modal
      opened={opened}
      onClose={closeSearch}
      title={t("search.title")}
      closeButtonProps={{ "aria-label": t("do.close") }}
      size="lg"
    >
      <TextInput
        data-autofocus
        value={query}
        onChange={(event) => setQuery(event.currentTarget.value)}
        placeholder={t("search.placeholder")}
        aria-label={t("search.title")}
        leftSection={<IconSearch size={17} />}
        rightSection={busy ? <Loader size="xs" /> : null}
      />
      {room && (
        <Checkbox
          mt="sm"
          label={t("search.here")}
          checked={here}
          onChange={(event) => setHere(event.currentTarget.checked)}
        />
      )}
      <p className={styles.state} role="status">
        {wanted.length < SHORTEST
          ? t("search.hint")
          : busy && !found.length
            ? ""
            : found.length
              ? t("search.found", { count: found.length })
              : t("search.none")}
      </p>
      <ul className={styles.results}>
        {found.map((message) => (
          <li key={message.id}>
            <Result message={message} query={wanted} />
          </li>
        ))}
      </ul>
    </Modal>
  );
}

function Result({ message, query }: { message: ShownMessage; query: string }) {
  const { t } = useTranslation();
  const author = usePerson(message.sender_id);
  const room = useRooms((state) => state.rooms[message.room_id]);
  const authorName = nameOf(author) || message.sender_username;
  const name = message.mine ? t("chat.you") : authorName;
  return (
    <button
      type="button"
      className={styles.result}
      onClick={() => {
        closeSearch();
        go({ view: "room", room: message.room_id, message: message.id });
      }}
    >
      <Avatar id={message.sender_id} name={authorName} url={author?.avatar_url} size={36} />
      <span className={styles.body}>
        <span className={styles.head}>
          <b>{name}</b>
          <span className={styles.room}>{room?.name}</span>
          <time dateTime={message.created_at}>{shortTime(message.created_at)}</time>
        </span>
        <span className={styles.text}>
          <Marked text={message.text ?? ""} query={query} />
        </span>
      </span>
    </button>
  );
}

/** The part of a text around the match, with the match marked. */
function Marked({ text, query }: { text: string; query: string }) {
  const at = text.toLowerCase().indexOf(query.toLowerCase());
  if (at < 0) return <>{text.slice(0, 160)}</>;
  const from = Math.max(0, at - 50);
  return (
    <>
      {from > 0 && "…"}
      {text.slice(from, at)}
      <mark>{text.slice(at, at + query.length)}</mark>
      {text.slice(at + query.length, at + 120)}
    </>
  );
}
