// The switch of the language before the login.

import { IconLanguage } from "@tabler/icons-react";
import { useTranslation } from "react-i18next";
import { changeLanguage, currentLanguage, LANGUAGES, type Language } from "@/i18n";
import styles from "./Login.module.css";

export function LanguageSelect() {
  useTranslation(); // draws again after a change of the language
  return (
    <label className={styles.language}>
      <IconLanguage size={18} aria-hidden="true" />
      <select
        aria-label="Language / Язык"
        value={currentLanguage()}
        onChange={(event) => void changeLanguage(event.currentTarget.value as Language)}
      >
        {LANGUAGES.map(({ value, label }) => (
          <option key={value} value={value} lang={value}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}
