// The connection in figures: state, latency from commit to screen, delivered and recovered events.

import { CloseButton } from "@mantine/core";
import { useEffect, useState } from "react";
import { useTranslation } from "react-i18next";
import { backend } from "@/model/backend";
import { useConnection } from "@/model/connection";
import { percentile, useMeasures } from "@/model/measure";
import { useUnsent } from "@/model/sending";
import { closePanel } from "./panel";
import styles from "./Panel.module.css";

const REFRESH = 500;

export default function Panel() {
  const { t } = useTranslation();
  const { state, transport } = useConnection();
  const latencies = useMeasures((measures) => measures.latencies);
  const unsent = useUnsent((sending) => sending.count);
  const [metrics, setMetrics] = useState(() => backend().metrics());
  useEffect(() => {
    const timer = setInterval(() => setMetrics(backend().metrics()), REFRESH);
    return () => clearInterval(timer);
  }, []);
  const [median, most] = [percentile(latencies, 0.5), percentile(latencies, 0.95)];
  const name =
    state === "connected" ? "connected" : state === "closed" || state === "idle" ? "disconnected" : "connecting";
  const lines: [string, React.ReactNode][] = [
    [
      t("panel.state"),
      <span key="state" className={styles.state} data-state={name}>
        {t(`panel.state.${name}`)}
      </span>,
    ],
    [t("panel.transport"), t(`panel.transport.${transport}`)],
    [
      t("panel.latency"),
      median === null ? (
        t("panel.noneYet")
      ) : (
        <>
          {t("panel.median", { ms: median })}
          <br />
          {t("panel.p95", { ms: most })}
        </>
      ),
    ],
    [t("panel.delivered"), metrics.delivered],
    [t("panel.recovered"), metrics.recovered],
    [t("panel.reloads"), metrics.resyncs],
    [t("panel.reconnects"), metrics.reconnects],
    [t("panel.pending"), unsent],
  ];
  return (
    <aside className={styles.panel} aria-label={t("panel.title")}>
      <header className={styles.head}>
        <h2>{t("panel.title")}</h2>
        <CloseButton aria-label={t("do.close")} onClick={closePanel} />
      </header>
      <Bars latencies={latencies.slice(-60)} label={t("panel.latencyHint")} />
      <dl className={styles.list}>
        {lines.map(([label, value]) => (
          <div key={label} className={styles.line}>
            <dt>{label}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </aside>
  );
}

/** One bar for each of the last messages; the scale grows with the slowest. */
function Bars({ latencies, label }: { latencies: readonly number[]; label: string }) {
  const top = Math.max(100, ...latencies);
  const width = 240 / 60;
  return (
    <svg className={styles.bars} viewBox="0 0 240 44" role="img" aria-label={label} preserveAspectRatio="none">
      <title>{label}</title>
      {latencies.map((value, index) => {
        const height = Math.max(2, (value / top) * 42);
        return (
          <rect
            key={index}
            x={240 - (latencies.length - index) * width}
            y={44 - height}
            width={width - 1}
            height={height}
            rx={1}
          />
        );
      })}
    </svg>
  );
}
