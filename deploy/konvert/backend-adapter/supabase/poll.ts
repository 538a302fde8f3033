// Repeated reading, since the old backend sends nothing by itself.

import { BackendError } from "../errors.js";

/** Longest pause after failures, in milliseconds. */
const LAST_PAUSE_MS = 60_000;

export interface PollReports {
  succeeded(tookMs: number): void;
  failed(error: BackendError): void;
}

/** Runs `work` at once, then again a period after each end; after temporary errors less and less often. */
export class Poll {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running = false;
  private again = false;
  private failures = 0;
  private ended = false;

  constructor(
    private readonly period: number,
    private readonly work: () => Promise<void>,
    private readonly reports: PollReports,
  ) {
    void this.run();
  }

  /** Runs now, or once more after the present run. */
  now(): void {
    if (this.ended) return;
    if (this.running) this.again = true;
    else void this.run();
  }

  end(): void {
    this.ended = true;
    clearTimeout(this.timer);
  }

  private async run(): Promise<void> {
    clearTimeout(this.timer);
    this.running = true;
    const start = performance.now();
    try {
      await this.work();
      this.failures = 0;
      if (!this.ended) this.reports.succeeded(performance.now() - start);
    } catch (problem) {
      const error =
        problem instanceof BackendError ? problem : new BackendError("server", String(problem), { cause: problem });
      this.failures = error.temporary ? this.failures + 1 : 0;
      if (!this.ended) this.reports.failed(error);
    }
    this.running = false;
    if (this.ended) return;
    const pause = this.again ? 0 : Math.min(this.period * 2 ** this.failures, Math.max(LAST_PAUSE_MS, this.period));
    this.again = false;
    this.timer = setTimeout(() => void this.run(), pause);
  }
}
