// The user's own status.

import type { UserMode } from "konvert-backend-adapter/interface";
import { useEffect } from "react";
import { create } from "zustand";
import { backend } from "./backend";
import { useConnection } from "./connection";
import { attempt } from "./problems";

export const MODES: readonly UserMode[] = ["online", "away", "dnd", "invisible"];

const useOwnMode = create<{ mode: UserMode }>(() => ({ mode: "online" }));

/** The status from the server, since other devices may set the status too. */
export function useMode(): UserMode {
  const connected = useConnection((state) => state.state === "connected");
  useEffect(() => {
    if (!connected) return;
    backend()
      .getStatus()
      .then(({ mode }) => useOwnMode.setState({ mode }))
      .catch(() => undefined); // without the gateway there are no statuses
  }, [connected]);
  return useOwnMode((state) => state.mode);
}

export const changeStatus = (mode: UserMode): Promise<boolean> =>
  attempt(async () => {
    await backend().setStatus(mode);
    useOwnMode.setState({ mode });
  });
