// The state of the realtime connection and of the browser's network.

import type { ConnectionState } from "konvert-backend-adapter/interface";
import { create } from "zustand";
import { backend } from "./backend";

interface Connection extends ConnectionState {
  online: boolean;
  /** Whether this page has been connected since the login. */
  wasConnected: boolean;
  /** Whether the page is cut off: what others do is unknown. Short interruptions go unnoticed. */
  lost: boolean;
}

/** Length of an interruption that goes unnoticed. */
const PATIENCE = 1_500;

export const useConnection = create<Connection>(() => ({
  state: "idle",
  transport: "gateway",
  since: Date.now(),
  online: navigator.onLine,
  wasConnected: false,
  lost: false,
}));

let waiting: ReturnType<typeof setTimeout> | undefined;

useConnection.subscribe(({ state, online, lost }) => {
  const isAway = !online || (state !== "connected" && state !== "idle");
  const set = (value: boolean) => {
    clearTimeout(waiting);
    waiting = undefined;
    if (lost !== value) useConnection.setState({ lost: value });
  };
  if (!isAway || !online) set(isAway);
  else if (!lost) waiting ??= setTimeout(set, PATIENCE, true);
});

let stop: (() => void) | undefined;
const updateOnline = () => useConnection.setState({ online: navigator.onLine });

export function openConnection(): void {
  const show = (state: ConnectionState) =>
    useConnection.setState((old) => ({ ...state, wasConnected: old.wasConnected || state.state === "connected" }));
  show(backend().connectionState());
  stop = backend().onConnectionState(show);
  window.addEventListener("online", updateOnline);
  window.addEventListener("offline", updateOnline);
}

export function closeConnection(): void {
  stop?.();
  window.removeEventListener("online", updateOnline);
  window.removeEventListener("offline", updateOnline);
  useConnection.setState({ state: "idle", wasConnected: false });
}
