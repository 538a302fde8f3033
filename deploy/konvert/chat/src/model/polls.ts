// Polls by the id of their message, loaded when a message of the kind "poll" is on the screen.

import type { Poll } from "konvert-backend-adapter/interface";
import { useEffect } from "react";
import { create } from "zustand";
import { backend } from "./backend";
import { attempt } from "./problems";
import { put } from "./timeline";

export const usePolls = create<{ polls: Record<string, Poll | "missing"> }>(() => ({ polls: {} }));

const set = (messageId: string, poll: Poll | "missing"): void =>
  usePolls.setState(({ polls }) => ({ polls: { ...polls, [messageId]: poll } }));

export async function loadPoll(messageId: string): Promise<void> {
  try {
    set(messageId, (await backend().getPoll(messageId)).poll);
  } catch {
    if (!usePolls.getState().polls[messageId]) set(messageId, "missing"); // the text of the message stands in
  }
}

export function usePoll(messageId: string): Poll | "missing" | undefined {
  const poll = usePolls((state) => state.polls[messageId]);
  useEffect(() => void loadPoll(messageId), [messageId]);
  return poll;
}

/** Somebody has voted: polls that are on the screen, or were, are read again. */
export function pollChanged(messageId: string): void {
  if (usePolls.getState().polls[messageId]) void loadPoll(messageId);
}

/** A second choice replaces the first; the same choice again withdraws the vote. */
export const vote = (poll: Poll, option: number): Promise<boolean> =>
  attempt(async () => {
    const choice = poll.my_vote === option ? null : option;
    set(poll.message_id, (await backend().votePoll(poll.id, choice)).poll);
  });

export const createPoll = (roomId: string, question: string, options: string[], anonymous: boolean): Promise<boolean> =>
  attempt(async () => {
    const { poll } = await backend().createPoll(roomId, question, options, anonymous);
    set(poll.message_id, poll);
    put(roomId, [(await backend().getMessage(poll.message_id)).message]);
  });

export const closePolls = (): void => usePolls.setState({ polls: {} });
