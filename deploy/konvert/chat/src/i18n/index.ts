// The languages of the chat: the browser's language at first, then the user's choice.

import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { en } from "./en";
import { ru } from "./ru";

export type Language = "en" | "ru";

export const LANGUAGES: readonly { value: Language; label: string }[] = [
  { value: "en", label: "English" },
  { value: "ru", label: "Русский" },
];

const KEY = "konvert.language";

/** The first language: the user's choice, or the first supported one of `navigator.languages`. */
export function preferredLanguage(): Language {
  const chosen = localStorage.getItem(KEY);
  const wanted = [chosen ?? "", ...navigator.languages].map((tag) => tag.slice(0, 2).toLowerCase());
  return wanted.find((tag): tag is Language => tag === "en" || tag === "ru") ?? "en";
}

export async function changeLanguage(language: Language): Promise<void> {
  localStorage.setItem(KEY, language);
  document.documentElement.lang = language;
  await i18next.changeLanguage(language);
}

export function currentLanguage(): Language {
  return i18next.language === "ru" ? "ru" : "en";
}

/** The texts of both languages are part of the first bundle: a request for one of them would delay the first drawing. */
export async function startLanguages(): Promise<void> {
  const language = preferredLanguage();
  document.documentElement.lang = language;
  await i18next.use(initReactI18next).init({
    lng: language,
    fallbackLng: "en",
    resources: { en: { translation: en }, ru: { translation: ru } },
    keySeparator: false,
    nsSeparator: false,
    interpolation: { escapeValue: false }, // React escapes
  });
}
