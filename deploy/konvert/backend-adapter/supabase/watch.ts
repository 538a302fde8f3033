// Polls of all subscriptions; the connection state follows from the results.

import type { BackendError } from "../errors.js";
import type { ConnectionState, Metrics, Unsubscribe } from "../interface.js";
import type { Client } from "./client.js";
import { Poll } from "./poll.js";

/** Periods in milliseconds; those of the old chat unless given. */
export interface PollingPeriods {
  /** Messages of a subscribed room. */
  messages: number;
  /** Rooms, direct conversations and users' status. */
  rooms: number;
  notifications: number;
  polls: number;
  /** The caller's own sign of life. */
  activity: number;
}

export const PERIODS: PollingPeriods = {
  messages: 3000,
  rooms: 15_000,
  notifications: 3000,
  polls: 5000,
  activity: 120_000,
};

/** Latencies kept for the median. */
const LATENCIES = 100;

interface Job {
  period: number;
  work: () => Promise<void>;
  failed: (error: BackendError) => void;
  poll: Poll | null;
}

export class Watch {
  private readonly jobs = new Set<Job>();
  private readonly listeners = new Set<(state: ConnectionState) => void>();
  private readonly latencies: number[] = [];
  private readonly ends: (() => void)[] = [];
  private counts = { delivered: 0, resyncs: 0, reconnects: 0 };
  private lastMs: number | null = null;
  private user: string | null;
  private activity: Poll | null = null;
  private current: ConnectionState = { state: "idle", transport: "polling", since: Date.now() };

  constructor(
    private readonly client: Client,
    readonly periods: PollingPeriods,
    private readonly onConnected: () => void,
  ) {
    this.user = client.userId;
    const page = globalThis as unknown as Partial<EventTarget>;
    const online = () => this.refresh();
    page.addEventListener?.("online", online);
    this.ends.push(() => page.removeEventListener?.("online", online));
    this.ends.push(client.onAuthChange((user) => this.loginChanged(user?.id ?? null)));
  }

  /** Repeats `work` while somebody is logged in, until the returned function is called. */
  repeat(
    period: number,
    work: () => Promise<void>,
    failed: (error: BackendError) => void,
  ): { now: () => void; end: Unsubscribe } {
    const job: Job = { period, work, failed, poll: null };
    this.jobs.add(job);
    this.start();
    return {
      now: () => job.poll?.now(),
      end: () => {
        job.poll?.end();
        this.jobs.delete(job);
        if (this.jobs.size === 0) this.stop("idle");
      },
    };
  }

  refresh(): void {
    for (const { poll } of this.jobs) poll?.now();
  }

  private start(): void {
    if (!this.user || this.jobs.size === 0) return;
    if (this.current.state === "idle" || this.current.state === "closed") this.enter("connecting");
    for (const job of this.jobs) {
      job.poll ??= new Poll(job.period, job.work, {
        succeeded: (tookMs) => this.succeeded(tookMs),
        failed: (error) => this.failed(job, error),
      });
    }
    this.activity ??= new Poll(this.periods.activity, async () => void (await this.client.post("/auth/activity")), {
      succeeded: () => {},
      failed: () => {}, // only a sign of life: the other polls report
    });
  }

  private stop(state: "idle" | "closed", error?: BackendError): void {
    for (const job of this.jobs) {
      job.poll?.end();
      job.poll = null;
    }
    this.activity?.end();
    this.activity = null;
    this.enter(state, error);
  }

  private succeeded(tookMs: number): void {
    this.lastMs = tookMs;
    if (this.current.state === "connected") return;
    if (this.current.state === "reconnecting") this.counts.reconnects++;
    this.enter("connected");
    this.onConnected();
  }

  private failed(job: Job, error: BackendError): void {
    job.failed(error);
    if (error.code === "unauthorized") this.stop("closed", error);
    else if (error.temporary && this.current.state === "connected") this.enter("reconnecting");
  }

  /** Restarts the polls for the new user. */
  private loginChanged(user: string | null): void {
    const isOver = this.current.state === "closed" && !user;
    this.user = user;
    if (isOver) return; // the reason stays visible until the next login
    this.stop("idle");
    this.start();
  }

  private enter(state: ConnectionState["state"], error?: BackendError): void {
    if (state === this.current.state) return;
    this.current = { state, transport: "polling", since: Date.now(), ...(error ? { error } : {}) };
    for (const listener of [...this.listeners]) listener(this.current);
  }

  state(): ConnectionState {
    return this.current;
  }

  onState(callback: (state: ConnectionState) => void): Unsubscribe {
    this.listeners.add(callback);
    return () => void this.listeners.delete(callback);
  }

  /** Counts a message delivered by a poll. */
  delivered(date: string): void {
    this.counts.delivered++;
    const latency = Date.now() - Date.parse(date);
    if (Number.isNaN(latency)) return;
    this.latencies.push(latency);
    if (this.latencies.length > LATENCIES) this.latencies.shift();
  }

  resync(): void {
    this.counts.resyncs++;
  }

  metrics(): Metrics {
    const sorted = [...this.latencies].sort((a, b) => a - b);
    return {
      pingMs: this.lastMs,
      lastLatencyMs: this.latencies.at(-1) ?? null,
      medianLatencyMs: sorted[Math.floor(sorted.length / 2)] ?? null,
      recovered: 0,
      ...this.counts,
    };
  }

  close(): void {
    this.stop("idle");
    this.jobs.clear();
    for (const end of this.ends.splice(0)) end();
    this.listeners.clear();
  }
}
