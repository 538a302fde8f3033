// The first view: log in, sign up, and one-click logins of a demo.

import { useEffect, useRef, useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { loadModel } from "@/app/parts";
import { runtime, type DemoUser } from "@/app/runtime";
import { useSession } from "@/model/session";
import { Avatar } from "@/widgets/Avatar";
import { Field, PasswordField, Submit } from "./Fields";
import { LanguageSelect } from "./LanguageSelect";
import styles from "./Login.module.css";
import { problemsOf, type Mode, type Problems, type Values } from "./problems";

const MODES: readonly Mode[] = ["login", "signup"];

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
  const [values, setValues] = useState<Values>({ username: "", email: "", password: "" });
  const { enter, isBusy, problems, setProblems } = useLogin(mode);
  const form = useRef<HTMLFormElement>(null);
  const button = useRef<HTMLButtonElement>(null);

  // The first wrong field has the focus. On a phone, the text of a problem must not push the button out of sight.
  useEffect(() => {
    if (!Object.keys(problems).length) return;
    form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
    button.current?.scrollIntoView({ block: "nearest" });
  }, [problems]);

  const field = (name: keyof Values) => ({
    value: values[name],
    problem: problems[name],
    onChange: (value: string) => setValues((before) => ({ ...before, [name]: value })),
  });

  function submit(event: FormEvent) {
    event.preventDefault();
    const wrong = problemsOf(values, mode, t);
    if (Object.keys(wrong).length) return setProblems(wrong);
    const { email, password, username } = values;
    void enter(({ logIn, signUp }) =>
      mode === "login" ? logIn(email.trim(), password) : signUp(email.trim(), password, username.trim()),
    );
  }

  return (
    <form ref={form} className={styles.form} onSubmit={submit} noValidate>
      {mode === "signup" && (
        <Field
          label={t("login.username")}
          hint={t("login.usernameHint")}
          autoComplete="username"
          maxLength={60}
          {...field("username")}
        />
      )}
      <Field label={t("login.email")} type="email" autoComplete="email" {...field("email")} />
      <PasswordField
        label={t("login.password")}
        hint={mode === "signup" ? t("login.passwordHint") : undefined}
        autoComplete={mode === "login" ? "current-password" : "new-password"}
        {...field("password")}
      />
      <Problem text={problems.form} />
      <Submit ref={button} label={t(`${mode}.do`)} isBusy={isBusy} />
    </form>
  );
}

/** One button for each user of a demo; only `konvert-gateway dev` names such users. */
function DemoUsers({ users }: { users: readonly DemoUser[] }) {
  const { t } = useTranslation();
  const { enter, isBusy, problems } = useLogin("login");
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
      <Problem text={problems.form} />
    </section>
  );
}

function Problem({ text }: { text: string | undefined }) {
  if (!text) return null;
  return (
    <p className={styles.problem} role="alert">
      {text}
    </p>
  );
}

type Model = Awaited<ReturnType<typeof loadModel>>;

/** Runs an action that logs in, and keeps the texts of its failure. */
function useLogin(mode: Mode) {
  const { t } = useTranslation();
  const [isBusy, setBusy] = useState(false);
  const [problems, setProblems] = useState<Problems>({});

  async function enter(action: (model: Model) => Promise<void>) {
    setBusy(true);
    setProblems({});
    try {
      const model = await loadModel();
      await action(model).catch((error: unknown) => setProblems(model.refusal(error, mode, t)));
    } catch {
      setProblems({ form: t("login.noServer") }); // the model could not be loaded
    }
    setBusy(false);
  }

  return { enter, isBusy, problems, setProblems };
}
