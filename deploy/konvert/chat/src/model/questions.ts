// A question with two answers. `widgets/confirm.tsx` shows it.

import { create } from "zustand";

interface Question {
  text: string;
  action: string;
  answer: (yes: boolean) => void;
}

export const useQuestion = create<{ question: Question | null }>(() => ({ question: null }));

export function ask(text: string, action: string): Promise<boolean> {
  return new Promise((answer) => useQuestion.setState({ question: { text, action, answer } }));
}
