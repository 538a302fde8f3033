// The line at the top while the page is not connected.

import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { useConnection } from "@/model/connection";
import { useUnsent } from "@/model/sending";
import { openPanel } from "./panel";
import styles from "./Banner.module.css";

/** Shorter interruptions go unnoticed. */
const PATIENCE = 1_500;

export function Banner() {
  const { t } = useTranslation();
  const { state, online, wasConnected } = useConnection();
  const unsent = useUnsent((sending) => sending.count);
  const away = !online || (state !== "connected" && state !== "idle");
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (!away) return setShown(false);
    if (!online) return setShown(true);
    const timer = setTimeout(setShown, PATIENCE, true);
    return () => clearTimeout(timer);
  }, [away, online]);
  const text = !online
    ? t("net.offline")
    : state === "closed"
      ? t("net.closed")
      : t(wasConnected ? "net.reconnecting" : "net.connecting");
  return (
    <div role="status" className={styles.frame} data-banner={shown ? "shown" : "hidden"}>
      {shown && (
        <button type="button" className={styles.banner} onClick={openPanel}>
          <span className={styles.pulse} aria-hidden="true" />
          <span>
            {text}
            {unsent > 0 && <span className={styles.unsent}> {t("net.waiting", { count: unsent })}</span>}
          </span>
        </button>
      )}
    </div>
  );
}
