// A message's text with its links and mentions. Texts are never read as HTML.

import { memo, type ReactNode } from "react";
import { meId } from "@/model/session";
import { nameOf, personNow } from "@/model/people";
import { openProfile } from "@/people/profile";
import styles from "./RichText.module.css";

const LINK = /\bhttps?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g;

interface Part {
  from: number;
  to: number;
  node: ReactNode;
}

function links(text: string): Part[] {
  return [...text.matchAll(LINK)].map((match) => ({
    from: match.index,
    to: match.index + match[0].length,
    node: (
      <a href={match[0]} target="_blank" rel="noopener noreferrer">
        {match[0]}
      </a>
    ),
  }));
}

function mentioned(text: string, mentions: readonly string[]): Part[] {
  const parts: Part[] = [];
  for (const id of mentions) {
    const word = `@${nameOf(personNow(id))}`;
    if (word.length < 2) continue;
    for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
      const node = (
        <button
          type="button"
          className={styles.mention}
          data-me={id === meId() || undefined}
          onClick={() => openProfile(id)}
        >
          {word}
        </button>
      );
      parts.push({ from: at, to: at + word.length, node });
    }
  }
  return parts;
}

export const RichText = memo(function RichText({ text, mentions }: { text: string; mentions: readonly string[] }) {
  const parts = [...links(text), ...mentioned(text, mentions)].sort((a, b) => a.from - b.from);
  const nodes: ReactNode[] = [];
  let end = 0;
  for (const part of parts) {
    if (part.from < end) continue;
    nodes.push(text.slice(end, part.from), <span key={part.from}>{part.node}</span>);
    end = part.to;
  }
  return (
    <>
      {nodes}
      {text.slice(end)}
    </>
  );
});
