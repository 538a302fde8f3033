import { create } from "zustand";
import type { ShownMessage } from "@/model/timeline";

/** The message for which the dialog "Forward to" is open. */
export const useForward = create<{ message: ShownMessage | null }>(() => ({ message: null }));
export const openForward = (message: ShownMessage): void => useForward.setState({ message });
export const closeForward = (): void => useForward.setState({ message: null });
