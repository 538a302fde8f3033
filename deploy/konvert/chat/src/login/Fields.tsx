// Labelled inputs of the login, on native elements: the component library is not in the first bundle.

import { IconEye, IconEyeOff } from "@tabler/icons-react";
import { useId, useState, type InputHTMLAttributes, type ReactNode, type Ref } from "react";
import { useTranslation } from "react-i18next";
import styles from "./Login.module.css";

interface Props extends Omit<InputHTMLAttributes<HTMLInputElement>, "onChange"> {
  label: string;
  hint?: string | undefined;
  problem?: string | undefined;
  value: string;
  onChange: (value: string) => void;
  /** A button inside the input, at its end. */
  children?: ReactNode;
}

export function Field({ label, hint, problem, onChange, children, ...input }: Props) {
  const id = useId();
  const descriptions = [hint && `${id}hint`, problem && `${id}problem`].filter(Boolean).join(" ");
  return (
    <div className={styles.field}>
      <label htmlFor={id}>{label}</label>
      {hint && (
        <p id={`${id}hint`} className={styles.hint}>
          {hint}
        </p>
      )}
      <div className={styles.input}>
        <input
          id={id}
          aria-describedby={descriptions || undefined}
          aria-invalid={problem !== undefined}
          onChange={(event) => onChange(event.currentTarget.value)}
          required
          {...input}
        />
        {children}
      </div>
      {problem && (
        <p id={`${id}problem`} className={styles.problem}>
          {problem}
        </p>
      )}
    </div>
  );
}

export function PasswordField(props: Omit<Props, "type" | "children">) {
  const { t } = useTranslation();
  const [isShown, setShown] = useState(false);
  const Icon = isShown ? IconEyeOff : IconEye;
  return (
    <Field {...props} type={isShown ? "text" : "password"}>
      <button
        type="button"
        aria-label={t("login.showPassword")}
        aria-pressed={isShown}
        onClick={() => setShown(!isShown)}
      >
        <Icon size={18} aria-hidden="true" />
      </button>
    </Field>
  );
}

interface SubmitProps {
  ref: Ref<HTMLButtonElement>;
  label: string;
  isBusy: boolean;
}

export function Submit({ ref, label, isBusy }: SubmitProps) {
  return (
    <button ref={ref} type="submit" className={styles.submit} disabled={isBusy} aria-busy={isBusy}>
      {label}
    </button>
  );
}
