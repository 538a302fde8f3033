// One's own picture with a menu: status, friends, settings, connection, log out.

import { Menu, UnstyledButton } from "@mantine/core";
import {
  IconActivity,
  IconBell,
  IconCheck,
  IconLogout,
  IconMessage2,
  IconSettings,
  IconUsers,
} from "@tabler/icons-react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { useConnection } from "@/model/connection";
import { useIncoming } from "@/model/friends";
import { nameOf } from "@/model/people";
import { logOut } from "@/model/login";
import { useMe } from "@/model/session";
import { useUnsent } from "@/model/sending";
import { changeStatus, MODES, useMode } from "@/model/status";
import { openPanel } from "@/panel/panel";
import { Avatar } from "@/widgets/Avatar";
import { ask } from "@/model/questions";
import styles from "./MainMenu.module.css";

export function MainMenu() {
  const { t } = useTranslation();
  const me = useMe();
  const mode = useMode();
  const shown = useConnection((state) => state.lost) ? "offline" : mode;
  const requests = useIncoming();
  const unsent = useUnsent((state) => state.count);

  async function leave() {
    const hint = t("settings.logoutLoses", { count: unsent });
    if (unsent && !(await ask(t("settings.logoutSure"), t("settings.logout"), hint))) return;
    await logOut();
  }

  return (
    <Menu position="bottom-start" width={290}>
      <Menu.Target>
        <UnstyledButton
          className={styles.button}
          aria-label={`${t("settings.menu")}: ${nameOf(me)}, ${t(`status.${shown}`)}${requests ? `, ${t("friends.requests", { count: requests })}` : ""}`}
        >
          <Avatar id={me.id} name={nameOf(me)} url={me.avatar_url} size={38} status={shown} />
          {requests > 0 && <span className={styles.requests}>{requests > 9 ? "9+" : requests}</span>}
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          <span className={styles.name}>{nameOf(me)}</span>
          <br />
          {me.email}
        </Menu.Label>
        <Menu.Divider />
        <Menu.Label>{t("status.set")}</Menu.Label>
        {MODES.map((value) => (
          <Menu.Item
            key={value}
            leftSection={<span className={styles.status} data-status={value} />}
            rightSection={mode === value ? <IconCheck size={16} /> : null}
            onClick={() => void changeStatus(value)}
          >
            <span className={styles.first}>{t(`status.${value}`)}</span>
            <span className={styles.hint}>{t(`status.hint.${value}`)}</span>
          </Menu.Item>
        ))}
        <Menu.Divider />
        <Menu.Item leftSection={<IconMessage2 size={17} />} onClick={() => go({ view: "rooms" })}>
          {t("rooms.title")}
        </Menu.Item>
        <Menu.Item
          leftSection={<IconUsers size={17} />}
          rightSection={requests > 0 ? <span className={styles.count}>{requests}</span> : null}
          onClick={() => go({ view: "friends" })}
        >
          {t("friends.title")}
        </Menu.Item>
        <Menu.Item leftSection={<IconBell size={17} />} onClick={() => go({ view: "notifications" })}>
          {t("notes.title")}
        </Menu.Item>
        <Menu.Item leftSection={<IconSettings size={17} />} onClick={() => go({ view: "settings" })}>
          {t("settings.title")}
        </Menu.Item>
        <Menu.Item leftSection={<IconActivity size={17} />} onClick={openPanel}>
          {t("panel.open")}
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={17} />} onClick={() => void leave()}>
          {t("settings.logout")}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
