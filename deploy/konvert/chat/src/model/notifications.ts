// Notifications: invitations, mentions, reactions and friend requests, newest first.

import type { Notification } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { backend } from "./backend";
import { accept, reject } from "./friends";
import { needPerson } from "./people";
import { attempt } from "./problems";

interface Notifications {
  list: readonly Notification[];
  cursor: string | null;
  state: "loading" | "loaded" | "failed";
}

const EMPTY: Notifications = { list: [], cursor: null, state: "loading" };
const PAGE = 40;
/** Requests at once when everything is marked as read. */
const PARALLEL = 4;

export const useNotifications = create<Notifications>(() => EMPTY);
export const useUnreadNotifications = (): number =>
  useNotifications(({ list }) => list.filter(({ read }) => !read).length);

let stop: (() => void) | undefined;

export function openNotifications(_user: string): void {
  void load();
  let subscribed = false;
  stop = backend().subscribeToUser({
    onReady: () => {
      // Changes between the first load and the subscription have no event.
      if (!subscribed) void load();
      subscribed = true;
    },
    onNotification: take,
    // An answered or withdrawn request takes its notification along, without an event of the notification.
    onFriendRequest: () => void load(),
    onResync: () => void load(),
    onError: () => undefined, // shown by the connection banner
  });
}

export function closeNotifications(): void {
  stop?.();
  useNotifications.setState(EMPTY);
}

function take(notification: Notification): void {
  needPerson(notification.fromUserId ?? "");
  useNotifications.setState(({ list }) => {
    const isKnown = list.some(({ id }) => id === notification.id);
    return {
      list: isKnown
        ? list.map((one) => (one.id === notification.id ? notification : one))
        : [notification, ...list].sort((a, b) => b.createdAt.localeCompare(a.createdAt)),
    };
  });
}

export async function load(): Promise<void> {
  try {
    const { notifications, cursor } = await backend().getNotifications({ limit: PAGE });
    for (const { fromUserId } of notifications) needPerson(fromUserId ?? "");
    useNotifications.setState({ list: notifications, cursor, state: "loaded" });
  } catch {
    useNotifications.setState(({ state }) => ({ state: state === "loaded" ? "loaded" : "failed" }));
  }
}

export const loadMore = (): Promise<boolean> =>
  attempt(async () => {
    const { cursor } = useNotifications.getState();
    if (!cursor) return;
    const page = await backend().getNotifications({ limit: PAGE, before: cursor });
    useNotifications.setState(({ list }) => ({
      list: [...list, ...page.notifications.filter(({ id }) => !list.some((one) => one.id === id))],
      cursor: page.cursor,
    }));
  });

const change = (id: string, update: (one: Notification) => Notification | null): void =>
  useNotifications.setState(({ list }) => ({
    list: list.flatMap((one) => (one.id === id ? (update(one) ?? []) : [one])),
  }));

export async function markNotification(id: string): Promise<void> {
  change(id, (one) => ({ ...one, read: true }));
  await backend()
    .markNotificationAsRead(id)
    .catch(() => load()); // gone meanwhile, or offline: the list as the server has it
}

export async function markAll(): Promise<void> {
  const unread = useNotifications.getState().list.filter(({ read }) => !read);
  const work = async () => {
    for (let next = unread.pop(); next; next = unread.pop()) await markNotification(next.id);
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
}

export async function dismiss(id: string): Promise<void> {
  change(id, () => null);
  if (!(await attempt(() => backend().deleteNotification(id)))) await load();
}

export async function answer(notification: Notification, isAccepted: boolean): Promise<void> {
  const { id, requestId } = notification;
  if (requestId) await (isAccepted ? accept(requestId) : reject(requestId));
  change(id, () => null);
  await load();
}
