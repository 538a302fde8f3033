// Counts of the connection, for a panel.

import type { Metrics, RecordEvent } from "./types.js";

const KEPT = 100;

export class Meter {
  private latencies: number[] = [];
  private readonly counts = { delivered: 0, recovered: 0, resyncs: 0, reconnects: 0 };
  pingMs: number | null = null;

  event(event: RecordEvent, recovered: boolean): void {
    this.counts.delivered += 1;
    if (recovered) this.counts.recovered += 1;
    const updated: unknown = event.record.updated;
    if (recovered || event.action === "delete" || typeof updated !== "string") return;
    const latency = Date.now() - Date.parse(updated.replace(" ", "T"));
    if (!Number.isFinite(latency)) return;
    this.latencies.push(Math.max(0, latency));
    if (this.latencies.length > KEPT) this.latencies.shift();
  }

  resync(): void {
    this.counts.resyncs += 1;
  }

  reconnect(): void {
    this.counts.reconnects += 1;
  }

  read(): Metrics {
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return {
      ...this.counts,
      pingMs: this.pingMs,
      lastLatencyMs: this.latencies.at(-1) ?? null,
      medianLatencyMs: sorted[Math.floor(sorted.length / 2)] ?? null,
    };
  }
}
