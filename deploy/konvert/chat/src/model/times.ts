// Dates and times in the user's language.

import { currentLanguage } from "@/i18n";

const formats = new Map<string, Intl.DateTimeFormat>();

function format(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = currentLanguage() + JSON.stringify(options);
  let found = formats.get(key);
  if (!found)
    formats.set(
      key,
      (found = new Intl.DateTimeFormat(
        currentLanguage() === "ru" ? "ru-RU" : navigator.language.startsWith("en") ? navigator.language : "en-GB",
        options,
      )),
    );
  return found;
}

export const clock = (iso: string): string => format({ hour: "2-digit", minute: "2-digit" }).format(new Date(iso));
export const moment = (iso: string): string =>
  format({ dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));

export const dayOf = (iso: string): string => new Date(iso).toDateString();

function daysAgo(iso: string): number {
  const start = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  return Math.round((start(new Date()) - start(new Date(iso))) / 86_400_000);
}

/** "Today", "Yesterday", "3 June", "3 June 2025". */
export function dayName(iso: string, words: { today: string; yesterday: string }): string {
  const days = daysAgo(iso);
  if (days <= 0) return words.today;
  if (days === 1) return words.yesterday;
  const thisYear = new Date(iso).getFullYear() === new Date().getFullYear();
  return format({ day: "numeric", month: "long", ...(thisYear ? {} : { year: "numeric" }) }).format(new Date(iso));
}

/** The time today, the weekday within a week, else the date: for lists. */
export function shortTime(iso: string): string {
  const days = daysAgo(iso);
  if (days <= 0) return clock(iso);
  if (days < 7) return format({ weekday: "short" }).format(new Date(iso));
  return format({ day: "2-digit", month: "2-digit", year: "2-digit" }).format(new Date(iso));
}

/** "5 minutes ago", "2 days ago". */
export function ago(iso: string | number): string {
  const relative = new Intl.RelativeTimeFormat(currentLanguage(), { numeric: "auto" });
  const minutes = Math.round((Date.now() - new Date(iso).getTime()) / 60_000);
  if (minutes < 60) return relative.format(-minutes, "minute");
  if (minutes < 60 * 24) return relative.format(-Math.round(minutes / 60), "hour");
  return relative.format(-Math.round(minutes / 1440), "day");
}
