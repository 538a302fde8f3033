// Numbers and sizes in the user's language.

import { currentLanguage } from "@/i18n";

/** "10,000" in English, "10 000" in Russian. */
export const numberText = (value: number): string => new Intl.NumberFormat(currentLanguage()).format(value);

/** "812 bytes", "14 kB", "2.5 MB"; in Russian "812 байт", "14 кБ", "2,5 МБ". Units of 1,024. */
export function sizeText(bytes: number): string {
  const [value, unit] =
    bytes < 1024
      ? [bytes, "byte"]
      : bytes < 1 << 20
        ? [Math.round(bytes / 1024), "kilobyte"]
        : [bytes / (1 << 20), "megabyte"];
  return new Intl.NumberFormat(currentLanguage(), {
    style: "unit",
    unit,
    unitDisplay: unit === "byte" ? "long" : "short",
    maximumFractionDigits: 1,
  }).format(value);
}
