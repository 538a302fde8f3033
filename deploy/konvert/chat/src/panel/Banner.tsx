// The line at the top while the page is not connected.

import { useTranslation } from "react-i18next";
import { useConnection } from "@/model/connection";
import { useUnsent } from "@/model/sending";
import { openPanel } from "./panel";
import styles from "./Banner.module.css";

export function Banner() {
  const { t } = useTranslation();
  const { state, online, wasConnected, lost } = useConnection();
  const unsent = useUnsent((sending) => sending.count);
  const text = !online
    ? t("net.offline")
    : state === "closed"
      ? t("net.closed")
      : t(wasConnected ? "net.reconnecting" : "net.connecting");
  return (
    <div role="status" className={styles.frame} data-banner={lost ? "shown" : "hidden"}>
      {lost && (
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
