import { create } from "zustand";

/** Whether the panel with the connection's figures is open. */
export const usePanel = create<{ opened: boolean }>(() => ({ opened: false }));
export const openPanel = (): void => usePanel.setState({ opened: true });
export const closePanel = (): void => usePanel.setState({ opened: false });
