import { create } from "zustand";

/** The room for which the dialog "Invite" is open. */
export const useInvite = create<{ room: string | null }>(() => ({ room: null }));
export const openInvite = (room: string): void => useInvite.setState({ room });
export const closeInvite = (): void => useInvite.setState({ room: null });
