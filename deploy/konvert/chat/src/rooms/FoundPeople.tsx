// People whose names match the text in the search field above the chats.

import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import type { User } from "konvert-backend-adapter/interface";
import { backend } from "@/model/backend";
import { nameOf, rememberPeople } from "@/model/people";
import { meId } from "@/model/session";
import { openDirect } from "./newChat";
import { PersonLine } from "@/people/PersonLine";
import styles from "./Sidebar.module.css";

export function usePeopleSearch(query: string): User[] | null {
  const [found, setFound] = useState<User[] | null>(null);
  useEffect(() => {
    const wanted = query.trim();
    if (wanted.length < 1) return setFound(null);
    const abort = new AbortController();
    const timer = setTimeout(() => {
      backend()
        .searchUsers(wanted, { limit: 30, signal: abort.signal })
        .then(({ users }) => {
          rememberPeople(users);
          setFound(users.filter(({ id }) => id !== meId()));
        })
        .catch(() => undefined); // cancelled by the next letter, or offline: the banner says so
    }, 200);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [query]);
  return found;
}

export function FoundPeople({ query, nothingElse }: { query: string; nothingElse: boolean }) {
  const { t } = useTranslation();
  const found = usePeopleSearch(query);
  if (!found) return null;
  if (!found.length)
    return nothingElse ? <p className={styles.section}>{t("rooms.noMatch", { text: query })}</p> : null;
  return (
    <section aria-label={t("rooms.people")}>
      <h2 className={styles.section}>{t("rooms.people")}</h2>
      <ul className={styles.list}>
        {found.map((person) => (
          <li key={person.id}>
            <PersonLine person={person} onClick={() => void openDirect(person.id)} note={`@${nameOf(person)}`} />
          </li>
        ))}
      </ul>
    </section>
  );
}
