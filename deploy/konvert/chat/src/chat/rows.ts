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
}

const GROUP = 5 * 60_000;

export function rowsOf(messages: readonly ShownMessage[], readUntil: string | undefined, complete: boolean): Row[] {
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
    };
  });
}
