// The frame of the page: the login, or the chat. The chat is a bundle of its own, which loads while the user logs in.

import { Loader } from "@mantine/core";
import { lazy, Suspense } from "react";
import { useTranslation } from "react-i18next";
import { Login } from "@/login/Login";
import { useSession } from "@/model/session";
import { Confirm } from "@/widgets/confirm";
import { Notices } from "@/widgets/notices";
import styles from "./App.module.css";

// The request starts with the page, beside those for settings and login.
const chat = import("./Chat");
const Chat = lazy(() => chat);

export function App() {
  const state = useSession((session) => session.state);
  return (
    <>
      {state === "starting" && <Starting />}
      {state === "out" && <Login />}
      {state === "in" && (
        <Suspense fallback={<Starting />}>
          <Chat />
        </Suspense>
      )}
      <Notices />
      <Confirm />
    </>
  );
}

function Starting() {
  const { t } = useTranslation();
  return (
    <div className={styles.starting} role="status">
      <Loader size="sm" /> {t("login.starting")}
    </div>
  );
}
