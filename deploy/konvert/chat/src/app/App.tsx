// The frame of the page: the login, or the chat.

import { lazy, Suspense } from "react";
import { useTranslation } from "react-i18next";
import { Login } from "@/login/Login";
import { useSession } from "@/model/session";
import { loadViews } from "./parts";
import styles from "./App.module.css";

const Views = lazy(loadViews);

export function App() {
  const state = useSession((session) => session.state);
  if (state === "starting") return <Starting />;
  if (state === "out") return <Login />;
  return (
    <Suspense fallback={<Starting />}>
      <Views />
    </Suspense>
  );
}

function Starting() {
  const { t } = useTranslation();
  return (
    <div className={styles.starting} role="status">
      <span className={styles.spinner} aria-hidden="true" /> {t("login.starting")}
    </div>
  );
}
