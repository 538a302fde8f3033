// The first view: log in, sign up, and one-click logins of a demo.

import { Button, Paper, PasswordInput, SegmentedControl, TextInput } from "@mantine/core";
import { useEffect, useRef, useState, type ChangeEvent, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import type { DemoUser } from "@/app/runtime";
import { runtime } from "@/app/runtime";
import { LanguageMenu } from "@/settings/LanguageMenu";
import { Avatar } from "@/widgets/Avatar";
import { loginProblem, logIn, signUp, useSession } from "@/model/session";
import { problemsOf, refusal, type Mode, type Problems, type Values } from "./problems";
import styles from "./Login.module.css";

export function Login() {
  const { t } = useTranslation();
  const [mode, setMode] = useState<Mode>("login");
  const ended = useSession((state) => state.ended);
  const demo = runtime().users;
  return (
    <main className={styles.page}>
      <div className={styles.language}>
        <LanguageMenu />
      </div>
      <Paper className={styles.card} radius="lg">
        <img src="./icon.svg" alt="" width={52} height={52} />
        <h1 className={styles.title}>{t("login.welcome")}</h1>
        <p className={styles.lead}>{t("login.lead")}</p>
        {ended && (
          <p className={styles.ended} role="status">
            {t("login.ended")}
          </p>
        )}
        {demo.length > 0 && <DemoUsers users={demo} />}
        <SegmentedControl
          fullWidth
          aria-label={`${t("login.tab")} / ${t("signup.tab")}`}
          value={mode}
          onChange={(value) => setMode(value as Mode)}
          data={[
            { value: "login", label: t("login.tab") },
            { value: "signup", label: t("signup.tab") },
          ]}
        />
        <LoginForm key={mode} mode={mode} />
      </Paper>
    </main>
  );
}

function LoginForm({ mode }: { mode: Mode }) {
  const { t } = useTranslation();
  const [values, setValues] = useState<Values>({ username: "", email: "", password: "" });
  const [problems, setProblems] = useState<Problems>({});
  const [busy, setBusy] = useState(false);
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
    error: problems[name],
    onChange: (event: ChangeEvent<HTMLInputElement>) => {
      const { value } = event.currentTarget;
      setValues((before) => ({ ...before, [name]: value }));
    },
    required: true,
  });

  async function submit(event: FormEvent) {
    event.preventDefault();
    const wrong = problemsOf(values, mode, t);
    setProblems(wrong);
    if (Object.keys(wrong).length) return;
    setBusy(true);
    const { username, email, password } = values;
    try {
      if (mode === "login") await logIn(email.trim(), password);
      else await signUp(email.trim(), password, username.trim());
    } catch (error) {
      setProblems(refusal(error, mode, t));
      setBusy(false);
    }
  }

  return (
    <form ref={form} className={styles.form} onSubmit={(event) => void submit(event)} noValidate>
      {mode === "signup" && (
        <TextInput
          label={t("login.username")}
          description={t("login.usernameHint")}
          autoComplete="username"
          maxLength={60}
          {...field("username")}
        />
      )}
      <TextInput label={t("login.email")} type="email" autoComplete="email" {...field("email")} />
      <PasswordInput
        label={t("login.password")}
        description={mode === "signup" ? t("login.passwordHint") : undefined}
        autoComplete={mode === "login" ? "current-password" : "new-password"}
        visibilityToggleButtonProps={{ "aria-label": t("login.showPassword") }}
        {...field("password")}
      />
      {problems.form && (
        <p className={styles.problem} role="alert">
          {problems.form}
        </p>
      )}
      <Button ref={button} type="submit" loading={busy} fullWidth size="md">
        {t(mode === "login" ? "login.do" : "signup.do")}
      </Button>
    </form>
  );
}

/** One button for each user of a demo; only `konvert-gateway dev` names such users. */
function DemoUsers({ users }: { users: readonly DemoUser[] }) {
  const { t } = useTranslation();
  const [busy, setBusy] = useState("");
  const [problem, setProblem] = useState("");
  async function enter(user: DemoUser) {
    setBusy(user.id);
    setProblem("");
    try {
      await logIn(user.email, user.password);
    } catch (error) {
      setProblem(loginProblem(error, t, "login"));
      setBusy("");
    }
  }
  return (
    <section className={styles.demo} aria-label={t("login.demo")}>
      <p className={styles.demoTitle}>{t("login.demo")}</p>
      <div className={styles.demoUsers}>
        {users.map((user) => (
          <Button
            key={user.id}
            variant="default"
            size="md"
            loading={busy === user.id}
            leftSection={<Avatar id={user.id} name={user.name} size={26} />}
            onClick={() => void enter(user)}
          >
            {user.name}
          </Button>
        ))}
      </div>
      <p className={styles.demoHint}>{t("login.demoHint")}</p>
      {problem && (
        <p className={styles.problem} role="alert">
          {problem}
        </p>
      )}
    </section>
  );
}
