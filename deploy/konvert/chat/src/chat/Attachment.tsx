// A file of a message: an image in the timeline, anything else as a line to download.

import { Loader, VisuallyHidden } from "@mantine/core";
import { IconDownload, IconFile } from "@tabler/icons-react";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { addressOf, downloadOf } from "@/model/files";
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

/** Opens an image in a tab, or saves a file. Encrypted files are always saved. */
async function open(file: ShownFile, message: ShownMessage, save = file.note !== undefined): Promise<void> {
  try {
    const link = document.createElement("a");
    link.href = await (save ? downloadOf : addressOf)(file, message);
    link.target = "_blank";
    link.rel = "noopener";
    if (save) link.download = file.name;
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

/** The end of a file's name that stays on one line: the extension with the letters before. */
const END = /\S{0,4}\.[^.\s]{1,8}$/u;

function Download({ file, message }: { file: ShownFile; message: ShownMessage }) {
  const { t } = useTranslation();
  const end = END.exec(file.name)?.[0] ?? "";
  const stem = file.name.slice(0, file.name.length - end.length);
  return (
    <button
      type="button"
      className={styles.file}
      onClick={() => void open(file, message, true)}
      title={t("message.download", { name: file.name })}
    >
      <span className={styles.icon}>
        <IconFile size={20} />
      </span>
      <span className={styles.name}>
        <span>
          <VisuallyHidden>{t("message.downloadFile")}</VisuallyHidden> {stem}
          <span className={styles.end}>{end}</span>
        </span>{" "}
        {file.size !== undefined && <span className={styles.size}>{sizeText(file.size)}</span>}
      </span>
      <IconDownload size={18} aria-hidden="true" />
    </button>
  );
}
