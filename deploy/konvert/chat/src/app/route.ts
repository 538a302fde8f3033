// The open view, in the address, as `#/room/ID`: reload, back and links work.

import { useSyncExternalStore } from "react";

export type Route =
  | { view: "rooms" }
  | { view: "room"; room: string; message?: string; details?: boolean }
  | { view: "friends" }
  | { view: "notifications" }
  | { view: "settings" };

function read(): Route {
  const [view, id, third, fourth] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  if (view === "room" && id) {
    if (third === "details") return { view: "room", room: id, details: true };
    return third === "message" && fourth ? { view: "room", room: id, message: fourth } : { view: "room", room: id };
  }
  if (view === "friends" || view === "notifications" || view === "settings") return { view };
  return { view: "rooms" };
}

function write(route: Route): string {
  if (route.view !== "room") return route.view === "rooms" ? "#/" : `#/${route.view}`;
  const room = `#/room/${encodeURIComponent(route.room)}`;
  if (route.details) return `${room}/details`;
  return route.message ? `${room}/message/${encodeURIComponent(route.message)}` : room;
}

let current = read();
const listeners = new Set<() => void>();
window.addEventListener("hashchange", () => {
  current = read();
  for (const listener of listeners) listener();
});

export const route = (): Route => current;

/** Opens a view. `replace`: Back does not lead to the present view. */
export function go(to: Route, { replace = false } = {}): void {
  if (write(to) === location.hash) return;
  if (!replace) {
    location.hash = write(to);
    return;
  }
  history.replaceState(null, "", write(to));
  current = to;
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const useRoute = (): Route => useSyncExternalStore(subscribe, route);
