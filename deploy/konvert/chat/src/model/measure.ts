// Latency of a message, from the server's commit to the screen.

import type { Message } from "konvert-backend-adapter/interface";
import { create } from "zustand";

const KEPT = 200;
/** Milliseconds. Later messages waited for a connection, and say nothing about the latency. */
const LIVE = 30_000;

interface Measures {
  /** Milliseconds, the newest last. */
  latencies: readonly number[];
}

export const useMeasures = create<Measures>(() => ({ latencies: [] }));

/** Clock difference between server and device in milliseconds, from the user's own messages. */
let offset = 0;

/** Compares the clocks: the server's time of a write, and the device's time before and after the write. */
export function compareClocks(began: number, ended: number, server: string): void {
  const at = Date.parse(server);
  if (at < began) offset = at - (began + ended) / 2;
  else if (at > ended) offset = at - (began + ended) / 2;
  else offset = 0;
}

/** Ids of the measured messages: the user's own arrive twice, as the answer of the write and as an event. */
const measured = new Set<string>();

export function measure(message: Message): void {
  if (measured.has(message.id)) return;
  if (measured.size > 1_000) measured.clear();
  measured.add(message.id);
  const committed = Date.parse(message.updated_at ?? message.created_at) - offset;
  // Two frames later the message is drawn. A hidden page draws nothing.
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
