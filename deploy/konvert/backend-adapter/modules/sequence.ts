// Events in their order, although some need a request first.

/** Runs tasks one after the other: at once while none is running, otherwise after the tasks before. */
export class Sequence {
  private running: Promise<void> | null = null;

  /** A failed task does not hold up the next. Its error is reported as unhandled, as without a sequence. */
  run(task: () => void | Promise<void>): void {
    const done = this.running ? this.running.then(task) : task();
    if (!done) return;
    const settled: Promise<void> = done
      .catch((error: unknown) => void Promise.reject(error))
      .then(() => {
        if (this.running === settled) this.running = null;
      });
    this.running = settled;
  }
}
