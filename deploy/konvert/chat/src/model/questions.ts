// A question with two answers, and a line about the consequences. `widgets/confirm.tsx` shows the question.

import { create } from "zustand";

interface Question {
  text: string;
  action: string;
  hint: string;
  answer: (yes: boolean) => void;
}

export const useQuestion = create<{ question: Question | null }>(() => ({ question: null }));

export function ask(text: string, action: string, hint = ""): Promise<boolean> {
  return new Promise((answer) => useQuestion.setState({ question: { text, action, hint, answer } }));
}
