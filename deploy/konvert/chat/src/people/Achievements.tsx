// Achievements of a user: those unlocked; for the user themselves also the progress of the others.

import { Tooltip } from "@mantine/core";
import type { Achievement } from "konvert-backend-adapter/interface";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { backend } from "@/model/backend";
import { meId } from "@/model/session";
import { numberText } from "@/model/numbers";
import { moment } from "@/model/times";
import styles from "./Achievements.module.css";

/** Loads the achievements; the own ones that are earned are unlocked. `fresh`: the names of those unlocked just now. */
function useAchievements(userId: string) {
  const { i18n } = useTranslation();
  const [list, setList] = useState<readonly Achievement[] | null>(null);
  const [fresh, setFresh] = useState<readonly string[]>([]);
  useEffect(() => {
    let isShown = true;
    const show = (next: readonly Achievement[]) => isShown && setList(next);
    const read = async () => {
      const { achievements } = await backend().getAchievements({ userId });
      show(achievements);
      if (userId !== meId()) return;
      const earned = achievements.filter((one) => !one.unlocked_at && one.progress >= one.max_progress);
      for (const { id, name } of earned) {
        await backend().unlockAchievement(id);
        if (isShown) setFresh((before) => [...before, name]);
      }
      if (earned.length) show((await backend().getAchievements({ userId })).achievements);
    };
    read().catch(() => show([])); // an addition to the profile, which is complete without
    return () => {
      isShown = false;
    };
  }, [userId, i18n.language]);
  return { list, fresh };
}

export default function Achievements({ userId }: { userId: string }) {
  const { t } = useTranslation();
  const { list, fresh } = useAchievements(userId);
  if (!list?.length) return null;
  const reachable = list.filter((one) => one.unlocked_at || !one.unavailable);
  const unlocked = reachable.filter((one) => one.unlocked_at);
  const open = reachable.filter((one) => !one.unlocked_at && !one.secret);
  const secret = reachable.length - unlocked.length - open.length;
  return (
    <section className={styles.frame} aria-label={t("achievements.title")}>
      <p className={styles.count}>
        {t("achievements.title")} · {t("achievements.count", { unlocked: unlocked.length, all: reachable.length })}
      </p>
      {/* Here and not as a notice, which would cover the page. */}
      <p className={styles.fresh} role="status">
        {fresh.length > 0 && t("achievements.unlocked", { names: fresh.join(", ") })}
      </p>
      {unlocked.length === 0 && <p className={styles.hint}>{t("achievements.none")}</p>}
      <ul className={styles.badges}>
        {unlocked.map((one) => (
          <li key={one.id}>
            <Tooltip
              multiline
              maw={260}
              label={`${one.name}: ${one.description}${one.unlocked_at ? ` ${moment(one.unlocked_at)}` : ""}`}
              events={{ hover: true, focus: true, touch: true }}
            >
              <button type="button" className={styles.badge} data-rarity={one.rarity} aria-label={one.name}>
                {one.icon}
              </button>
            </Tooltip>
          </li>
        ))}
      </ul>
      {userId === meId() && (
        <details className={styles.more}>
          <summary>{t("achievements.ahead", { count: open.length + secret })}</summary>
          <ul className={styles.list}>
            {open.map((one) => (
              <li key={one.id} className={styles.line}>
                <span aria-hidden="true">{one.icon}</span>
                <span className={styles.text}>
                  <b>{one.name}</b>
                  <span>{one.description}</span>
                </span>
                <span className={styles.progress}>
                  {numberText(one.progress)}/{numberText(one.max_progress)}
                </span>
              </li>
            ))}
          </ul>
          {secret > 0 && <p className={styles.hint}>{t("achievements.secret", { count: secret })}</p>}
        </details>
      )}
    </section>
  );
}
