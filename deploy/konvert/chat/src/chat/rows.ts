// Rows of the timeline: a message with the decorations around the bubble. Consecutive messages of an author within five
// minutes form a group with a single name and picture.

import { dayOf } from "@/model/times";
import type { ShownMessage } from "@/model/timeline";

export interface Row {
  key: string;
  message: ShownMessage;
  /** First and last message of a group. */
  first: boolean;
  last: boolean;
  /** The first message of a day carries the date. */
  newDay: boolean;
  /** The line "New messages" stands above. */
  firstUnread: boolean;
  /** The very first message of the room. */
  begin: boolean;
  /** Number of hidden messages of blocked users that this row stands for; 0 for a shown message. */
  hidden: number;
}

const GROUP = 5 * 60_000;

interface Options {
  /** Time of the last message that was read when the room was opened. */
  readUntil: string | undefined;
  /** Whether the first message is the first of the room. */
  complete: boolean;
  /** Users whose messages are hidden; consecutive ones become one row. */
  blocked: ReadonlySet<string>;
}

export function rowsOf(all: readonly ShownMessage[], { readUntil, complete, blocked }: Options): Row[] {
  const { messages, counts } = folded(all, blocked);
  const joined = (a: ShownMessage | undefined, b: ShownMessage | undefined) =>
    a !== undefined &&
    b !== undefined &&
    a.sender_id === b.sender_id &&
    dayOf(a.created_at) === dayOf(b.created_at) &&
    Date.parse(b.created_at) - Date.parse(a.created_at) < GROUP;
  let unreadSeen = false;
  return messages.map((message, index) => {
    const previous = messages[index - 1];
    const unread =
      !unreadSeen && readUntil !== undefined && !message.mine && message.created_at > readUntil && index > 0;
    unreadSeen ||= unread || (readUntil !== undefined && message.created_at > readUntil && !message.mine);
    const newDay = !previous || dayOf(previous.created_at) !== dayOf(message.created_at);
    return {
      key: message.key,
      message,
      first: unread || !joined(previous, message),
      last: !joined(message, messages[index + 1]),
      newDay,
      firstUnread: unread,
      begin: complete && index === 0,
      hidden: counts.get(message.key) ?? 0,
    };
  });
}

/** Consecutive messages of blocked users become the first of them, with their number. */
function folded(all: readonly ShownMessage[], blocked: ReadonlySet<string>) {
  const counts = new Map<string, number>();
  if (blocked.size === 0) return { messages: all, counts };
  const messages: ShownMessage[] = [];
  for (const message of all) {
    const last = messages.at(-1);
    if (!blocked.has(message.sender_id)) messages.push(message);
    else if (last && counts.has(last.key)) counts.set(last.key, (counts.get(last.key) ?? 0) + 1);
    else {
      messages.push(message);
      counts.set(message.key, 1);
    }
  }
  return { messages, counts };
}
