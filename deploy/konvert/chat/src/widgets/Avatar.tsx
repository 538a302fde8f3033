// A round picture of a user or room: the uploaded image, or the initials on a colour that follows from the id.

import { memo } from "react";
import styles from "./Avatar.module.css";

export type Presence = "online" | "away" | "dnd" | "invisible" | "offline";

interface Props {
  id: string;
  name: string;
  url?: string | undefined;
  size?: number;
  /** Coloured dot at the lower edge; none for "offline" and "invisible". */
  status?: Presence | undefined;
  icon?: React.ReactNode;
}

/** Pairs of colours with a contrast of at least 4.5 to the white initials. */
const COLOURS = ["#2f68d8", "#8a4fc7", "#b4446c", "#b3541e", "#2b7a4b", "#1d7a8a", "#5b62c4", "#8a6414"];

export function colourOf(id: string): string {
  let hash = 0;
  for (const character of id) hash = (hash * 31 + character.charCodeAt(0)) | 0;
  return COLOURS[Math.abs(hash) % COLOURS.length] ?? "#2f68d8";
}

export function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  return ((words[0]?.[0] ?? "?") + (words.length > 1 ? (words.at(-1)?.[0] ?? "") : "")).toUpperCase();
}

export const Avatar = memo(function Avatar({ id, name, url, size = 44, status, icon }: Props) {
  const dot = status && status !== "offline" && status !== "invisible";
  return (
    <span className={styles.avatar} style={{ width: size, height: size, fontSize: size * 0.38 }} aria-hidden="true">
      {url ? (
        <img className={styles.image} src={url} alt="" loading="lazy" draggable={false} />
      ) : (
        <span
          className={styles.initials}
          style={{ background: colourOf(id) }}
          data-initials={icon ? undefined : initials(name)}
        >
          {icon}
        </span>
      )}
      {dot && <span className={styles.dot} data-status={status} />}
    </span>
  );
});
