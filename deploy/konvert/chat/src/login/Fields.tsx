// Labelled inputs of the login, on native elements: the component library is not in the first bundle.

import { IconEye, IconEyeOff } from "@tabler/icons-react";
import { useId, useState, type InputHTMLAttributes } from "react";
import { useTranslation } from "react-i18next";
import styles from "./Login.module.css";

interface Props extends Omit<InputHTMLAttributes<HTMLInputElement>, "onChange"> {
  label: string;
  hint?: string | undefined;
  value: string;
  onChange: (value: string) => void;
}

export function Field({ label, hint, onChange, ...input }: Props) {
  const id = useId();
  return (
    <div className={styles.field}>
      <label htmlFor={id}>{label}</label>
      {hint && (
        <p id={`${id}hint`} className={styles.hint}>
          {hint}
        </p>
      )}
      <input
        id={id}
        aria-describedby={hint && `${id}hint`}
        onChange={(event) => onChange(event.currentTarget.value)}
        required
        {...input}
      />
    </div>
  );
}

export function PasswordField(props: Omit<Props, "type">) {
  const { t } = useTranslation();
  const [isShown, setShown] = useState(false);
  const Icon = isShown ? IconEyeOff : IconEye;
  return (
    <div className={styles.password}>
      <Field {...props} type={isShown ? "text" : "password"} />
      <button
        type="button"
        aria-label={t("login.showPassword")}
        aria-pressed={isShown}
        onClick={() => setShown(!isShown)}
      >
        <Icon size={18} aria-hidden="true" />
      </button>
    </div>
  );
}

interface SubmitProps {
  label: string;
  isBusy: boolean;
}

export function Submit({ label, isBusy }: SubmitProps) {
  return (
    <button type="submit" className={styles.submit} disabled={isBusy} aria-busy={isBusy}>
      {label}
    </button>
  );
}
