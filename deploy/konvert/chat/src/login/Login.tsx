// The first view: log in, sign up, and one-click logins of a demo.

import { useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { loadModel } from "@/app/parts";
import { runtime, type DemoUser } from "@/app/runtime";
import { useSession } from "@/model/session";
import { Avatar } from "@/widgets/Avatar";
import { Field, PasswordField, Submit } from "./Fields";
import { LanguageSelect } from "./LanguageSelect";
import styles from "./Login.module.css";

const MODES = ["login", "signup"] as const;
type Mode = (typeof MODES)[number];
const SHORTEST_PASSWORD = 8;

export function Login() {
  const { t } = useTranslation();
  const [mode, setMode] = useState<Mode>("login");
  const ended = useSession((state) => state.ended);
  const demo = runtime().users;
  return (
    <main className={styles.page}>
      <LanguageSelect />
      <div className={styles.card}>
        <img src="./icon.svg" alt="" width={52} height={52} />
        <h1 className={styles.title}>{t("login.welcome")}</h1>
        <p className={styles.lead}>{t("login.lead")}</p>
        {ended && (
          <p className={styles.ended} role="status">
            {t("login.ended")}
          </p>
        )}
        {demo.length > 0 && <DemoUsers users={demo} />}
        <fieldset className={styles.modes} aria-label={`${t("login.tab")} / ${t("signup.tab")}`}>
          {MODES.map((value) => (
            <label key={value}>
              <input type="radio" name="mode" checked={mode === value} onChange={() => setMode(value)} />
              {t(`${value}.tab`)}
            </label>
          ))}
        </fieldset>
        <LoginForm key={mode} mode={mode} />
      </div>
    </main>
  );
}

function LoginForm({ mode }: { mode: Mode }) {
  const { t } = useTranslation();
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [username, setUsername] = useState("");
  const { enter, isBusy, problem, setProblem } = useLogin(mode);

  function submit(event: FormEvent) {
    event.preventDefault();
    if (mode === "signup" && password.length < SHORTEST_PASSWORD) return setProblem(t("login.short"));
    void enter(({ logIn, signUp }) =>
      mode === "login" ? logIn(email.trim(), password) : signUp(email.trim(), password, username.trim()),
    );
  }

  return (
    <form className={styles.form} onSubmit={submit}>
      {mode === "signup" && (
        <Field
          label={t("login.username")}
          hint={t("login.usernameHint")}
          value={username}
          onChange={setUsername}
          autoComplete="username"
          maxLength={60}
        />
      )}
      <Field label={t("login.email")} type="email" value={email} onChange={setEmail} autoComplete="email" />
      <PasswordField
        label={t("login.password")}
        hint={mode === "signup" ? t("login.passwordHint") : undefined}
        value={password}
        onChange={setPassword}
        autoComplete={mode === "login" ? "current-password" : "new-password"}
      />
      <Problem text={problem} />
      <Submit label={t(`${mode}.do`)} isBusy={isBusy} />
    </form>
  );
}

/** One button for each user of a demo; only `konvert-gateway dev` names such users. */
function DemoUsers({ users }: { users: readonly DemoUser[] }) {
  const { t } = useTranslation();
  const { enter, isBusy, problem } = useLogin("login");
  return (
    <section className={styles.demo} aria-label={t("login.demo")}>
      <p className={styles.demoTitle}>{t("login.demo")}</p>
      <div className={styles.demoUsers}>
        {users.map(({ id, name, email, password }) => (
          <button
            key={id}
            type="button"
            disabled={isBusy}
            onClick={() => void enter(({ logIn }) => logIn(email, password))}
          >
            <Avatar id={id} name={name} size={26} /> {name}
          </button>
        ))}
      </div>
      <p className={styles.demoHint}>{t("login.demoHint")}</p>
      <Problem text={problem} />
    </section>
  );
}

function Problem({ text }: { text: string }) {
  if (!text) return null;
  return (
    <p className={styles.problem} role="alert">
      {text}
    </p>
  );
}

type Model = Awaited<ReturnType<typeof loadModel>>;

/** Runs an action that logs in, and keeps the text of its failure. */
function useLogin(mode: Mode) {
  const { t } = useTranslation();
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState("");

  async function enter(action: (model: Model) => Promise<void>) {
    setBusy(true);
    setProblem("");
    try {
      const model = await loadModel();
      await action(model).catch((error: unknown) => setProblem(model.loginProblem(error, t, mode)));
    } catch {
      setProblem(t("login.noServer")); // the model could not be loaded
    }
    setBusy(false);
  }

  return { enter, isBusy, problem, setProblem };
}
