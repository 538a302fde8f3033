// The user's profile, appearance, encryption and log-out.

import {
  ActionIcon,
  Button,
  SegmentedControl,
  TextInput,
  useMantineColorScheme,
  type MantineColorScheme,
} from "@mantine/core";
import { IconActivity, IconArrowLeft } from "@tabler/icons-react";
import { lazy, Suspense, useRef, useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { changeLanguage, currentLanguage, LANGUAGES, type Language } from "@/i18n";
import { backend } from "@/model/backend";
import { nameOf, rememberPeople } from "@/model/people";
import { attempt } from "@/model/problems";
import { useSecrecy } from "@/model/secrecy";
import { setMe, useMe } from "@/model/session";
import { openPanel } from "@/panel/panel";
import { Avatar } from "@/widgets/Avatar";
import { notify } from "@/model/notices";
import { EncryptionCard } from "./EncryptionCard";
import page from "./Page.module.css";

const Achievements = lazy(() => import("@/people/Achievements"));

export default function Settings() {
  const { t } = useTranslation();
  // On a new device, the field for the recovery code comes first: the bar above the chats leads here.
  const locked = useSecrecy((state) => state.state === "locked");
  return (
    <section className={page.page} aria-labelledby="settings">
      <header className={page.head}>
        <ActionIcon aria-label={t("chat.back")} onClick={() => go({ view: "rooms" })} size={40}>
          <IconArrowLeft size={21} />
        </ActionIcon>
        <h1 id="settings">{t("settings.title")}</h1>
      </header>
      <div className={page.scroll}>
        <div className={page.content}>
          {locked && <EncryptionCard />}
          <ProfileCard />
          <LookCard />
          {!locked && <EncryptionCard />}
          <section className={page.card}>
            <h2>{t("settings.connection")}</h2>
            <Button variant="default" leftSection={<IconActivity size={18} />} onClick={openPanel}>
              {t("panel.open")}
            </Button>
          </section>
        </div>
      </div>
    </section>
  );
}

function ProfileCard() {
  const { t } = useTranslation();
  const me = useMe();
  const [name, setName] = useState(nameOf(me));
  const [about, setAbout] = useState(me.status_text ?? "");
  const [busy, setBusy] = useState(false);
  const picker = useRef<HTMLInputElement>(null);

  async function save(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    const done = await attempt(async () => {
      const { user } = await backend().updateUserProfile({ display_name: name.trim(), status_text: about.trim() });
      setMe(user);
      rememberPeople([user]);
    });
    setBusy(false);
    if (done) notify(t("settings.saved"));
  }

  async function upload(file: File | undefined) {
    if (!file) return;
    await attempt(async () => {
      await backend().uploadAvatar(file);
      const { user } = await backend().getMe();
      setMe(user);
      rememberPeople([user]);
    });
  }

  return (
    <section className={page.card}>
      <h2>{t("settings.profile")}</h2>
      <div className={page.me}>
        <Avatar id={me.id} name={nameOf(me)} url={me.avatar_url} size={72} />
        <div>
          <Button variant="default" size="xs" onClick={() => picker.current?.click()}>
            {t("settings.avatar")}
          </Button>
          <p className={page.hint}>
            @{me.username} · {me.email}
          </p>
          <input
            ref={picker}
            type="file"
            hidden
            accept="image/png,image/jpeg,image/webp,image/gif"
            onChange={(event) => void upload(event.currentTarget.files?.[0])}
          />
        </div>
      </div>
      <form className={page.form} onSubmit={(event) => void save(event)}>
        <TextInput
          label={t("settings.name")}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          maxLength={60}
          required
        />
        <TextInput
          label={t("settings.about")}
          value={about}
          onChange={(event) => setAbout(event.currentTarget.value)}
          maxLength={200}
        />
        <Button type="submit" loading={busy}>
          {t("settings.save")}
        </Button>
      </form>
      <Suspense fallback={null}>
        <Achievements userId={me.id} />
      </Suspense>
    </section>
  );
}

function LookCard() {
  const { t } = useTranslation();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <section className={page.card}>
      <h2>{t("settings.look")}</h2>
      <div className={page.row}>
        <span id="theme">{t("settings.theme")}</span>
        <SegmentedControl
          aria-labelledby="theme"
          value={colorScheme}
          onChange={(value) => setColorScheme(value as MantineColorScheme)}
          data={(["auto", "light", "dark"] as const).map((value) => ({ value, label: t(`settings.theme.${value}`) }))}
        />
      </div>
      <div className={page.row}>
        <span id="language">{t("settings.language")}</span>
        <SegmentedControl
          aria-labelledby="language"
          value={currentLanguage()}
          onChange={(value) => void changeLanguage(value as Language)}
          data={LANGUAGES.map(({ value, label }) => ({ value, label }))}
        />
      </div>
    </section>
  );
}
