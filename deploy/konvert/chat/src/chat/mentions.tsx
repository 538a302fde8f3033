// Mentions: "@" and the first letters of a name open a list of the members.

import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { nameOf, usePeople, type Person } from "@/model/people";
import { meId } from "@/model/session";
import type { RoomView } from "@/model/rooms";
import { Avatar } from "@/widgets/Avatar";
import styles from "./Composer.module.css";

/** What follows the "@" before the caret; null if there is no such word. */
export function mentionAt(text: string, caret: number): string | null {
  return /(?:^|\s)@([\p{L}\p{N}_.-]{0,30})$/u.exec(text.slice(0, caret))?.[1] ?? null;
}

export function useMentionMatches(room: RoomView, query: string | null): Person[] {
  const people = usePeople((state) => state.people);
  return useMemo(() => {
    if (query === null || room.type === "dm") return [];
    const wanted = query.toLowerCase();
    return room.members
      .filter((id) => id !== meId())
      .flatMap((id) => people[id] ?? [])
      .filter((person) =>
        nameOf(person)
          .toLowerCase()
          .split(/\s+/)
          .some((word) => word.startsWith(wanted)),
      )
      .slice(0, 8);
  }, [room, query, people]);
}

export function completeMention(text: string, caret: number, person: Person): { text: string; at: number } {
  const before = text.slice(0, caret).replace(/@[\p{L}\p{N}_.-]*$/u, `@${nameOf(person)} `);
  return { text: before + text.slice(caret), at: before.length };
}

/** The members whose names stand in the text after an "@". */
export function mentionedIn(room: RoomView, text: string): string[] {
  if (!text.includes("@")) return [];
  const { people } = usePeople.getState();
  return room.members.filter((id) => {
    const name = nameOf(people[id]);
    return name && text.includes(`@${name}`);
  });
}

interface Props {
  people: readonly Person[];
  choice: number;
  onPick: (index: number) => void;
}

export function MentionList({ people, choice, onPick }: Props) {
  const { t } = useTranslation();
  return (
    <ul id="mentions" role="listbox" aria-label={t("compose.mention")} className={styles.mentions}>
      {people.map((person, index) => (
        <li
          key={person.id}
          id={`mention-${index}`}
          role="option"
          aria-selected={index === choice}
          className={styles.mention}
          onMouseDown={(event) => {
            event.preventDefault(); // the field keeps the focus
            onPick(index);
          }}
        >
          <Avatar id={person.id} name={nameOf(person)} url={person.avatar_url} size={26} />
          {nameOf(person)}
        </li>
      ))}
    </ul>
  );
}
