// Friends, and the requests to and from the user.

import { ActionIcon, Button, TextInput } from "@mantine/core";
import { IconArrowLeft, IconCheck, IconMessage, IconSearch, IconUserPlus, IconUsers, IconX } from "@tabler/icons-react";
import type { User } from "konvert-backend-adapter/interface";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { accept, befriend, reject, unfriend, useFriends } from "@/model/friends";
import { nameOf } from "@/model/people";
import { meId } from "@/model/session";
import { openDirect } from "@/rooms/newChat";
import { usePeopleSearch } from "@/rooms/FoundPeople";
import { EmptyState } from "@/widgets/EmptyState";
import { notify } from "@/model/notices";
import { PersonLine } from "./PersonLine";
import { openProfile } from "./profile";
import page from "@/settings/Page.module.css";

export default function Friends() {
  const { t } = useTranslation();
  const { friends, requests, loaded } = useFriends();
  const incoming = requests.filter(({ to }) => to.id === meId());
  const outgoing = requests.filter(({ from }) => from.id === meId());
  return (
    <section className={page.page} aria-labelledby="friends">
      <header className={page.head}>
        <ActionIcon aria-label={t("chat.back")} onClick={() => go({ view: "rooms" })} size={40}>
          <IconArrowLeft size={21} />
        </ActionIcon>
        <h1 id="friends">{t("friends.title")}</h1>
      </header>
      <div className={page.scroll}>
        <div className={page.content}>
          <FindPeople />
          {incoming.length > 0 && (
            <section className={page.card}>
              <h2>{t("friends.incoming")}</h2>
              {incoming.map(({ id, from }) => (
                <PersonLine key={id} person={from} onClick={() => openProfile(from.id)}>
                  <Button size="xs" leftSection={<IconCheck size={16} />} onClick={() => void accept(id)}>
                    {t("friends.accept")}
                  </Button>
                  <ActionIcon
                    aria-label={`${t("friends.reject")}: ${nameOf(from)}`}
                    title={t("friends.reject")}
                    onClick={() => void reject(id)}
                  >
                    <IconX size={18} />
                  </ActionIcon>
                </PersonLine>
              ))}
            </section>
          )}
          {outgoing.length > 0 && (
            <section className={page.card}>
              <h2>{t("friends.outgoing")}</h2>
              {outgoing.map(({ id, to }) => (
                <PersonLine key={id} person={to} onClick={() => openProfile(to.id)}>
                  <Button size="xs" variant="default" onClick={() => void unfriend(to.id)}>
                    {t("friends.cancel")}
                  </Button>
                </PersonLine>
              ))}
            </section>
          )}
          <section className={page.card}>
            <h2>{t("friends.title")}</h2>
            {friends.map((person) => (
              <PersonLine key={person.id} person={person} onClick={() => openProfile(person.id)}>
                <ActionIcon
                  aria-label={`${t("people.message")}: ${nameOf(person)}`}
                  title={t("people.message")}
                  onClick={() => void openDirect(person.id)}
                >
                  <IconMessage size={19} />
                </ActionIcon>
              </PersonLine>
            ))}
            {loaded && !friends.length && (
              <EmptyState icon={<IconUsers size={28} />} title={t("friends.none")} hint={t("friends.noneHint")} />
            )}
          </section>
        </div>
      </div>
    </section>
  );
}

function FindPeople() {
  const { t } = useTranslation();
  const [query, setQuery] = useState("");
  const found = usePeopleSearch(query);
  const { friends, requests } = useFriends();
  const known = new Set([...friends.map(({ id }) => id), ...requests.flatMap(({ from, to }) => [from.id, to.id])]);

  async function add(person: User) {
    if (await befriend(person.id)) notify(t("friends.sent", { name: nameOf(person) }));
  }

  return (
    <section className={page.card}>
      <TextInput
        label={t("friends.find")}
        placeholder={t("new.find")}
        leftSection={<IconSearch size={16} />}
        value={query}
        onChange={(event) => setQuery(event.currentTarget.value)}
        mb={found ? "xs" : 0}
      />
      {found?.map((person) => (
        <PersonLine key={person.id} person={person} onClick={() => openProfile(person.id)}>
          {!known.has(person.id) && (
            <ActionIcon
              variant="light"
              color="accent"
              aria-label={t("friends.add", { name: nameOf(person) })}
              title={t("people.addFriend")}
              onClick={() => void add(person)}
            >
              <IconUserPlus size={19} />
            </ActionIcon>
          )}
        </PersonLine>
      ))}
      {found?.length === 0 && <p className={page.hint}>{t("new.nobody")}</p>}
    </section>
  );
}
