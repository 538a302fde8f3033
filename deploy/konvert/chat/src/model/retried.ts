// Repetition of calls while the network or the server fails for a moment.

import { BackendError } from "konvert-backend-adapter/errors";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

/** Repeats a call until it succeeds or fails for good, or until `isWanted` is false. */
export async function retried<T>(call: () => Promise<T>, isWanted = () => true): Promise<T> {
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof BackendError && error.temporary && isWanted())) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
