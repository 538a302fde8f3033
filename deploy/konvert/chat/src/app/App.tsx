// The frame of the page: the login, or the chat.

import { useEffect, useState, type ComponentType } from "react";
import { useTranslation } from "react-i18next";
import { Login } from "@/login/Login";
import { useSession } from "@/model/session";
import { loadParts, loadViews } from "./parts";
import styles from "./App.module.css";

export function App() {
  const state = useSession((session) => session.state);
  const Views = useViews();
  if (state === "out") return <Login />;
  return state === "in" && Views ? <Views /> : <Starting />;
}

/**
 * The views of the chat, null until loaded. Loading begins after the first drawing, so that a log-in need not wait. Not
 * by `lazy`: React shows the fallback of a Suspense for at least 300 ms.
 */
function useViews(): ComponentType | null {
  const [views, setViews] = useState<{ default: ComponentType } | null>(null);
  useEffect(() => {
    loadParts();
    void loadViews().then(setViews);
  }, []);
  return views?.default ?? null;
}

function Starting() {
  const { t } = useTranslation();
  return (
    <div className={styles.starting} role="status">
      <span className={styles.spinner} aria-hidden="true" /> {t("login.starting")}
    </div>
  );
}
