// Short messages to the user: results of actions, and errors. `widgets/notices.tsx` shows them.

import { create } from "zustand";

export interface Notice {
  id: number;
  text: string;
  bad: boolean;
}

const SHOWN_FOR = 5_000;
let last = 0;

export const useNotices = create<{ notices: Notice[] }>(() => ({ notices: [] }));

export const removeNotice = (id: number): void =>
  useNotices.setState(({ notices }) => ({ notices: notices.filter((one) => one.id !== id) }));

export function notify(text: string, bad = false): void {
  const id = ++last;
  useNotices.setState(({ notices }) => ({
    notices: [...notices.filter((one) => one.text !== text).slice(-2), { id, text, bad }],
  }));
  setTimeout(removeNotice, SHOWN_FOR, id);
}
