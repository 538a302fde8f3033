import { create } from "zustand";

/** The room for which the dialog "New poll" is open. */
export const useNewPoll = create<{ room: string | null }>(() => ({ room: null }));
export const openNewPoll = (room: string): void => useNewPoll.setState({ room });
export const closeNewPoll = (): void => useNewPoll.setState({ room: null });
