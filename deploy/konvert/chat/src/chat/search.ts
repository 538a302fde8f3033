import { create } from "zustand";

/** The dialog "Search messages": open for all rooms, or for a single room. */
export const useSearch = create<{ opened: boolean; room: string | null }>(() => ({ opened: false, room: null }));
export const openSearch = (room: string | null = null): void => useSearch.setState({ opened: true, room });
export const closeSearch = (): void => useSearch.setState({ opened: false });
