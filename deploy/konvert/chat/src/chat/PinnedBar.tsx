// The pinned message below the header; with several pins, a click goes to the next one.

import { CloseButton } from "@mantine/core";
import { IconPin } from "@tabler/icons-react";
import type { Message } from "konvert-backend-adapter/interface";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { go } from "@/app/route";
import { unpin } from "@/model/actions";
import { backend } from "@/model/backend";
import { readContent } from "@/model/content";
import type { RoomView } from "@/model/rooms";
import { shown, useMessage, type ShownMessage } from "@/model/timeline";
import { summary } from "./summary";
import styles from "./PinnedBar.module.css";

export function PinnedBar({ room }: { room: RoomView }) {
  const { t } = useTranslation();
  const [index, setIndex] = useState(0);
  const id = room.pinned[index % Math.max(1, room.pinned.length)] ?? "";
  const message = usePinned(room.id, id);
  if (!id || !message) return null;
  return (
    <div className={styles.bar}>
      <button
        type="button"
        className={styles.main}
        title={t("chat.showPinned")}
        onClick={() => {
          go({ view: "room", room: room.id, message: id });
          setIndex((before) => before + 1);
        }}
      >
        <IconPin size={17} aria-hidden="true" />
        <span className={styles.text}>
          <span className={styles.title}>
            {t("chat.pinned")}
            {room.pinned.length > 1 && ` ${(index % room.pinned.length) + 1}/${room.pinned.length}`}{" "}
          </span>
          <span className={styles.line}>{summary(message, t)}</span>
        </span>
      </button>
      {room.mayPin && <CloseButton aria-label={t("chat.unpin")} onClick={() => void unpin(room.id, id)} />}
    </div>
  );
}

/** The pinned message, also if it is older than the loaded pages. */
function usePinned(roomId: string, id: string): ShownMessage | undefined {
  const loaded = useMessage(roomId, id);
  const [fetched, setFetched] = useState<Message | undefined>();
  const missing = id !== "" && !loaded;
  useEffect(() => {
    if (!missing) return;
    backend()
      .getMessage(id)
      .then(async ({ message }) => {
        await readContent(message);
        setFetched(message);
      })
      .catch(() => setFetched(undefined)); // deleted meanwhile
  }, [missing, id]);
  return loaded ?? (fetched?.id === id ? shown(fetched) : undefined);
}
