// The messages of a room, newest at the end. Only the visible rows are in the document, so that 10,000 messages scroll
// smoothly. The list stays at its end while it is there; older messages load when the user nears the beginning.

import { ActionIcon, Button, Loader } from "@mantine/core";
import { IconArrowDown } from "@tabler/icons-react";
import { useEffect, useLayoutEffect, useMemo, useRef, useState, type KeyboardEvent } from "react";
import { useTranslation } from "react-i18next";
import { Virtualizer, type VirtualizerHandle } from "virtua";
import { useBlocked, useShowsBlocked } from "@/model/blocked";
import type { RoomView } from "@/model/rooms";
import { loadOlder, useTimeline } from "@/model/timeline";
import { MessageRow } from "./MessageRow";
import { rowsOf } from "./rows";
import styles from "./Timeline.module.css";

interface Props {
  room: RoomView;
  /** Message to show and highlight, from a link, a search result or a reply. */
  target: string | undefined;
  /** Time of the last message that was read when the room was opened. */
  readUntil: string | undefined;
  onSeen: () => void;
}

const NOBODY: ReadonlySet<string> = new Set();
const NEAR_END = 80;
const NEAR_BEGIN = 600;
/** Time in which the list finds its position after earlier messages were put before it. */
const SETTLE_MS = 100;

export function Timeline({ room, target, readUntil, onSeen }: Props) {
  const { t } = useTranslation();
  const { messages, more, loading, failed } = useTimeline(room.id);
  const everybody = useShowsBlocked(room.id);
  const blocked = useBlocked();
  const rows = useMemo(
    () => rowsOf(messages, { readUntil, complete: !more, blocked: everybody ? NOBODY : blocked }),
    [messages, readUntil, more, everybody, blocked],
  );
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<VirtualizerHandle>(null);
  const atEnd = useRef(true);
  const [away, setAway] = useState(false);

  // Rows were put before the first one: virtua then keeps the position from the end.
  const before = useRef<{ first: string | undefined; length: number }>({ first: undefined, length: 0 });
  const shift =
    rows.length > before.current.length && before.current.first !== undefined && rows[0]?.key !== before.current.first;
  useLayoutEffect(() => {
    before.current = { first: rows[0]?.key, length: rows.length };
  });

  useEffect(() => {
    if (atEnd.current && rows.length) list.current?.scrollToIndex(rows.length - 1, { align: "end" });
  }, [rows]);

  useEffect(() => {
    const index = target ? rows.findIndex(({ message }) => message.id === target) : -1;
    if (index < 0) return;
    atEnd.current = false;
    list.current?.scrollToIndex(index, { align: "center" });
  }, [target, rows.some(({ message }) => message.id === target)]);

  // A smaller window (a keyboard on the screen, a longer draft) must not hide the last message.
  useEffect(() => {
    if (!scroller.current) return;
    const observer = new ResizeObserver(() => {
      if (atEnd.current) list.current?.scrollToIndex(Number.MAX_SAFE_INTEGER, { align: "end" });
    });
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);

  function onScroll() {
    const handle = list.current;
    if (!handle) return;
    const left = handle.scrollSize - handle.scrollOffset - handle.viewportSize;
    atEnd.current = left < NEAR_END;
    setAway(left > 400);
    if (atEnd.current) onSeen();
    if (handle.scrollOffset < NEAR_BEGIN && more && !loading) void loadOlder(room.id);
  }

  const isEmpty = rows.length === 0;
  // A short list cannot be scrolled, and a list that stays at its beginning is not scrolled: nothing would ask for more.
  useEffect(() => {
    if (!more || loading || failed || isEmpty) return;
    const ask = () => {
      const handle = list.current;
      if (!handle || handle.viewportSize === 0) return; // not shown
      const isShort = handle.scrollSize <= handle.viewportSize;
      if (isShort || (!atEnd.current && handle.scrollOffset < NEAR_BEGIN)) void loadOlder(room.id);
    };
    // The list first returns to the position that it had before earlier messages came.
    const timer = setTimeout(ask, SETTLE_MS);
    return () => clearTimeout(timer);
  }, [isEmpty, more, loading, failed, room.id]);

  /** Arrow keys move from message to message; Home and End go to the first and last that are loaded. */
  function onKeyDown(event: KeyboardEvent) {
    const focused = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>("[data-index]");
    const from = focused ? Number(focused.dataset.index) : rows.length;
    const to = { ArrowUp: from - 1, ArrowDown: from + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || !rows[to] || (event.target as HTMLElement).closest("[role=menu], [role=dialog]")) return;
    event.preventDefault();
    atEnd.current = to === rows.length - 1;
    list.current?.scrollToIndex(to, { align: "nearest" });
    requestAnimationFrame(() => {
      scroller.current?.querySelector<HTMLElement>(`[data-index="${to}"]`)?.focus({ preventScroll: true });
    });
  }

  function toEnd() {
    atEnd.current = true;
    list.current?.scrollToIndex(rows.length - 1, { align: "end" });
  }

  return (
    <div className={styles.frame}>
      <div
        ref={scroller}
        className={styles.scroller}
        tabIndex={0}
        role="log"
        aria-label={t("chat.messages")}
        onKeyDown={onKeyDown}
      >
        <div className={styles.filler} />
        <Virtualizer ref={list} data={rows} shift={shift} scrollRef={scroller} onScroll={onScroll} bufferSize={600}>
          {(row, index) => (
            <MessageRow key={row.key} row={row} index={index} room={room} highlighted={row.message.id === target} />
          )}
        </Virtualizer>
      </div>
      {loading && (
        <div className={styles.loading} role="status">
          <Loader size="xs" /> {t(messages.length ? "chat.older" : "chat.loading")}
        </div>
      )}
      {failed && (
        <div className={styles.loading} role="alert">
          {t("chat.loadFailed")}
          <Button size="compact-sm" variant="subtle" onClick={() => void loadOlder(room.id)}>
            {t("chat.retry")}
          </Button>
        </div>
      )}
      {away && (
        <ActionIcon
          className={styles.toEnd}
          size={42}
          radius="xl"
          variant="default"
          aria-label={t("chat.toEnd")}
          onClick={toEnd}
        >
          <IconArrowDown size={20} />
          {room.unread > 0 && <span className={styles.count}>{room.unread}</span>}
        </ActionIcon>
      )}
    </div>
  );
}
