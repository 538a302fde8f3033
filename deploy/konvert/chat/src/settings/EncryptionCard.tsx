// The state of the encryption, the recovery code, and unlocking on a new device.

import { Button, TextInput } from "@mantine/core";
import { useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { copyText } from "@/model/actions";
import { report } from "@/model/problems";
import { resetIdentity, unlock, useSecrecy } from "@/model/secrecy";
import { ask } from "@/model/questions";
import page from "./Page.module.css";

export function EncryptionCard() {
  const { t } = useTranslation();
  const { state, identity } = useSecrecy();
  const [shown, setShown] = useState(false);
  return (
    <section className={page.card} id="encryption">
      <h2>{t(state === "locked" ? "e2ee.lockedTitle" : "settings.encryption")}</h2>
      {state === "locked" ? (
        <Unlock />
      ) : (
        <>
          <p className={page.hint}>{t(`e2ee.${state === "opening" ? "on" : state}`)}</p>
          {identity && (
            <>
              <h3 className={page.label}>{t("e2ee.code")}</h3>
              <p className={page.hint}>{t("e2ee.codeHint")}</p>
              <div className={page.code}>
                {shown ? (
                  <>
                    <code>{identity.recoveryCode}</code>
                    <Button size="xs" variant="default" onClick={() => void copyText(identity.recoveryCode)}>
                      {t("e2ee.copy")}
                    </Button>
                  </>
                ) : (
                  <Button variant="default" onClick={() => setShown(true)}>
                    {t("e2ee.showCode")}
                  </Button>
                )}
              </div>
            </>
          )}
        </>
      )}
    </section>
  );
}

export function Unlock() {
  const { t } = useTranslation();
  const [code, setCode] = useState("");
  const [wrong, setWrong] = useState(false);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    try {
      setWrong(!(await unlock(code)));
    } catch (error) {
      report(error);
    }
    setBusy(false);
  }

  async function reset() {
    if (await ask(t("e2ee.resetSure"), t("e2ee.resetDo"), t("e2ee.resetHint"))) await resetIdentity().catch(report);
  }

  return (
    <form className={page.form} onSubmit={(event) => void submit(event)}>
      <p className={page.hint}>{t("e2ee.lockedText")}</p>
      <TextInput
        label={t("e2ee.enterCode")}
        placeholder="XXXX-XXXX-XXXX-XXXX-XXXX-XXXX"
        value={code}
        onChange={(event) => setCode(event.currentTarget.value)}
        error={wrong ? t("e2ee.wrongCode") : undefined}
        autoComplete="off"
        spellCheck={false}
        required
      />
      <div className={page.row}>
        <Button type="submit" loading={busy}>
          {t("e2ee.unlock")}
        </Button>
        <Button variant="subtle" color="gray" onClick={() => void reset()}>
          {t("e2ee.reset")}
        </Button>
      </div>
    </form>
  );
}
