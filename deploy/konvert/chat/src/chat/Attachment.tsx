// A file of a message: an image in the timeline, anything else as a line to download.

import { Loader, VisuallyHidden } from "@mantine/core";
import { IconDownload, IconFile } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { addressOf } from "@/model/files";
import { sizeText } from "@/model/numbers";
import { report } from "@/model/problems";
import type { ShownFile, ShownMessage } from "@/model/timeline";
import styles from "./Attachment.module.css";

const IMAGE = /\.(png|jpe?g|gif|webp|avif)$/i;

export function Attachment({ file, message }: { file: ShownFile; message: ShownMessage }) {
  const image = file.note ? file.note.type.startsWith("image/") : message.type === "image" || IMAGE.test(file.name);
  return image && message.text !== null ? (
    <Picture file={file} message={message} />
  ) : (
    <Download file={file} message={message} />
  );
}

async function open(file: ShownFile, message: ShownMessage): Promise<void> {
  try {
    const link = document.createElement("a");
    link.href = await addressOf(file, message);
    link.target = "_blank";
    link.rel = "noopener";
    if (file.note) link.download = file.name;
    link.click();
  } catch (error) {
    report(error);
  }
}

function Picture({ file, message }: { file: ShownFile; message: ShownMessage }) {
  const { t } = useTranslation();
  const [address, setAddress] = useState("");
  const [broken, setBroken] = useState(false);
  const { state, id } = message;
  useEffect(() => {
    let shown = true;
    addressOf(file, message).then(
      (url) => shown && setAddress(url),
      () => shown && setBroken(true),
    );
    return () => {
      shown = false;
    };
  }, [file.key, file.note, state, id]);
  if (broken) return <Download file={file} message={message} />;
  return (
    <button
      type="button"
      className={styles.picture}
      onClick={() => void open(file, message)}
      aria-label={t("message.openImage", { name: file.name })}
    >
      {address ? <img src={address} alt={file.name} onError={() => setBroken(true)} /> : <Loader size="sm" />}
    </button>
  );
}

function Download({ file, message }: { file: ShownFile; message: ShownMessage }) {
  const { t } = useTranslation();
  return (
    <button
      type="button"
      className={styles.file}
      onClick={() => void open(file, message)}
      title={t("message.download", { name: file.name })}
    >
      <span className={styles.icon}>
        <IconFile size={20} />
      </span>
      <span className={styles.name}>
        <span>
          <VisuallyHidden>{t("message.downloadFile")}</VisuallyHidden> {file.name}
        </span>{" "}
        {file.note && <span className={styles.size}>{sizeText(file.note.size)}</span>}
      </span>
      <IconDownload size={18} aria-hidden="true" />
    </button>
  );
}
