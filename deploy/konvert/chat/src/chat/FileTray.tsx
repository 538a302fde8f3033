// The files that go with the next message.

import { CloseButton } from "@mantine/core";
import { IconFile, IconPhoto } from "@tabler/icons-react";
import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { notify } from "@/model/notices";
import styles from "./Composer.module.css";

/** Limit of the server's `files` field. */
const MEGABYTES = 25;

export function tooLarge(file: File, t: TFunction): boolean {
  if (file.size <= MEGABYTES << 20) return false;
  notify(t("compose.tooLarge", { name: file.name, limit: MEGABYTES }), true);
  return true;
}

interface Props {
  files: readonly File[];
  onRemove: (file: File) => void;
}

export function FileTray({ files, onRemove }: Props) {
  const { t } = useTranslation();
  if (!files.length) return null;
  return (
    <div className={styles.files} role="group" aria-label={t("compose.files", { count: files.length })}>
      {files.map((file, index) => (
        <span key={`${file.name}${index}`} className={styles.file}>
          {file.type.startsWith("image/") ? (
            <IconPhoto size={16} aria-hidden="true" />
          ) : (
            <IconFile size={16} aria-hidden="true" />
          )}
          <span className={styles.fileName}>{file.name}</span>
          <CloseButton
            size="sm"
            aria-label={t("compose.removeFile", { name: file.name })}
            onClick={() => onRemove(file)}
          />
        </span>
      ))}
    </div>
  );
}
