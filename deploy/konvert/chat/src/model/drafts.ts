// Unsent texts, per user and room, in the browser's storage: drafts survive a reload, a crash and a new login.

import { create } from "zustand";

export interface Draft {
  text: string;
  /** Id of the answered message. */
  replyTo?: string;
  /** Id of the edited message; the draft is the new text. */
  editing?: string;
}

const EMPTY: Draft = { text: "" };
const prefix = (user: string) => `konvert.draft.${user}.`;

interface Drafts {
  user: string;
  drafts: Record<string, Draft>;
}

export const useDrafts = create<Drafts>(() => ({ user: "", drafts: {} }));

export const useDraft = (room: string): Draft => useDrafts((state) => state.drafts[room] ?? EMPTY);
export const draftOf = (room: string): Draft => useDrafts.getState().drafts[room] ?? EMPTY;

/** Loads the drafts of a user at log-in. */
export function openDrafts(user: string): void {
  const drafts: Record<string, Draft> = {};
  for (const key of Object.keys(localStorage)) {
    if (!key.startsWith(prefix(user))) continue;
    try {
      const draft = JSON.parse(localStorage.getItem(key) ?? "") as Draft;
      if (typeof draft.text === "string") drafts[key.slice(prefix(user).length)] = draft;
    } catch {
      localStorage.removeItem(key); // not a draft
    }
  }
  useDrafts.setState({ user, drafts });
}

export function keepDraft(room: string, draft: Draft): void {
  const { user, drafts } = useDrafts.getState();
  const { [room]: _, ...others } = drafts;
  const empty = !draft.text && !draft.replyTo && !draft.editing;
  useDrafts.setState({ drafts: empty ? others : { ...drafts, [room]: draft } });
  try {
    if (empty) localStorage.removeItem(prefix(user) + room);
    else localStorage.setItem(prefix(user) + room, JSON.stringify(draft));
  } catch {
    // The storage is full or blocked: the draft lives as long as the page.
  }
}

export const clearDraft = (room: string): void => keepDraft(room, EMPTY);
