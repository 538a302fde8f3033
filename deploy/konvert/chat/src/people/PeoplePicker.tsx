// Chooses several people: a search field, the matches with a tick, the chosen ones as chips.

import { Checkbox, CloseButton, TextInput } from "@mantine/core";
import { IconSearch } from "@tabler/icons-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { useFriends } from "@/model/friends";
import { nameOf, usePeople } from "@/model/people";
import { usePeopleSearch } from "@/rooms/FoundPeople";
import { Avatar } from "@/widgets/Avatar";
import styles from "./PeoplePicker.module.css";

interface Props {
  label: string;
  chosen: readonly string[];
  onChange: (ids: string[]) => void;
  /** People who cannot be chosen, such as members. */
  without?: readonly string[];
}

export function PeoplePicker({ label, chosen, onChange, without = [] }: Props) {
  const { t } = useTranslation();
  const [query, setQuery] = useState("");
  const friends = useFriends((state) => state.friends);
  const people = usePeople((state) => state.people);
  const found = usePeopleSearch(query);
  const shown = (found ?? friends).filter(({ id }) => !without.includes(id));
  const toggle = (id: string) => onChange(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);
  return (
    <div>
      <TextInput
        label={label}
        placeholder={t("new.find")}
        leftSection={<IconSearch size={16} />}
        value={query}
        onChange={(event) => setQuery(event.currentTarget.value)}
      />
      {chosen.length > 0 && (
        <div className={styles.chips}>
          {chosen.map((id) => (
            <span key={id} className={styles.chip}>
              <Avatar id={id} name={nameOf(people[id])} url={people[id]?.avatar_url} size={20} />
              {nameOf(people[id])}
              <CloseButton
                size="xs"
                aria-label={t("compose.removeFile", { name: nameOf(people[id]) })}
                onClick={() => toggle(id)}
              />
            </span>
          ))}
        </div>
      )}
      <div className={styles.list}>
        {shown.map((person) => (
          <Checkbox
            key={person.id}
            className={styles.person}
            checked={chosen.includes(person.id)}
            onChange={() => toggle(person.id)}
            label={
              <span className={styles.label}>
                <Avatar id={person.id} name={nameOf(person)} url={person.avatar_url} size={28} />
                {nameOf(person)}
              </span>
            }
          />
        ))}
        {query && found?.length === 0 && <p className={styles.none}>{t("new.nobody")}</p>}
      </div>
    </div>
  );
}
