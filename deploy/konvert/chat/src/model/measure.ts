// Time from the server's commit of a message to its drawing on this screen.

import type { Message } from "konvert-backend-adapter/interface";
import { create } from "zustand";

const KEPT = 200;
/** Older messages arrived late because nobody was connected, which says nothing about the speed. */
const LIVE = 30_000;

interface Measures {
  /** Milliseconds, the newest last. */
  latencies: readonly number[];
}

export const useMeasures = create<Measures>(() => ({ latencies: [] }));

/** Difference between the server's clock and this one, as the adapter's or the user's own messages show it. */
let offset = 0;

/** A write that took place between two moments of this clock, with the server's time of it. */
export function compareClocks(began: number, ended: number, server: string): void {
  const at = Date.parse(server);
  if (at < began) offset = at - (began + ended) / 2;
  else if (at > ended) offset = at - (began + ended) / 2;
  else offset = 0;
}

/** Ids of the measured messages: one's own arrive twice, as the answer of the write and as an event. */
const measured = new Set<string>();

export function measure(message: Message): void {
  if (measured.has(message.id)) return;
  if (measured.size > 1_000) measured.clear();
  measured.add(message.id);
  const committed = Date.parse(message.updated_at ?? message.created_at) - offset;
  // Two frames later the browser has drawn it. A hidden page draws nothing.
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const latency = Date.now() - committed;
      if (latency < 0 || latency > LIVE) return;
      useMeasures.setState(({ latencies }) => ({ latencies: [...latencies.slice(1 - KEPT), latency] }));
    }),
  );
}

export function percentile(values: readonly number[], share: number): number | null {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
}
