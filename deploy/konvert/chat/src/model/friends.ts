// Friends and friend requests.

import type { FriendRequest, User } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { backend } from "./backend";
import { rememberPeople } from "./people";
import { attempt } from "./problems";
import { takeSealed } from "./secrecy";
import { meId } from "./session";
import { seekKeys } from "./timeline";

interface Friends {
  friends: readonly User[];
  requests: readonly FriendRequest[];
  loaded: boolean;
}

export const useFriends = create<Friends>(() => ({ friends: [], requests: [], loaded: false }));

export const useIncoming = (): number =>
  useFriends((state) => state.requests.filter(({ to }) => to.id === meId()).length);

let stop: (() => void) | undefined;

export function openFriends(_user: string): void {
  void loadFriends();
  let subscribed = false;
  stop = backend().subscribeToUser({
    onFriendRequest: () => void loadFriends(),
    onNotification: ({ type }) => void (type.startsWith("friend") && loadFriends()),
    onRoomKey: ({ roomId, encryptedKey }) => void takeSealed(roomId, encryptedKey),
    onReady: () => {
      // Changes between the first load and the subscription have no event.
      if (!subscribed) void loadFriends();
      subscribed = true;
      seekKeys();
    },
    onResync: () => {
      void loadFriends();
      seekKeys();
    },
    onError: () => undefined, // shown by the connection banner
  });
}

export function closeFriends(): void {
  stop?.();
  useFriends.setState({ friends: [], requests: [], loaded: false });
}

export async function loadFriends(): Promise<void> {
  try {
    const [{ users }, { requests }] = await Promise.all([backend().getFriends(), backend().getFriendRequests()]);
    rememberPeople([...users, ...requests.flatMap(({ from, to }) => [from, to])]);
    useFriends.setState({ friends: users, requests, loaded: true });
  } catch {
    // The list as it was; the next event or reconnect loads it again.
  }
}

async function changed(action: () => Promise<void>): Promise<boolean> {
  const done = await attempt(action);
  await loadFriends();
  return done;
}

export const befriend = (id: string) => changed(() => backend().sendFriendRequest(id));
export const accept = (requestId: string) => changed(() => backend().acceptFriendRequest(requestId));
export const reject = (requestId: string) => changed(() => backend().rejectFriendRequest(requestId));
export const unfriend = (id: string) => changed(() => backend().removeFriend(id));
