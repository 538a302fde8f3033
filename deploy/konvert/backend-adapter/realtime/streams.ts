// Addresses of the gateway's streams, for clients whose WebSockets do not get through (proto/README.md, "Streams").

import type { TransportEndpoint } from "centrifuge";
import type { StreamAddresses } from "./types.js";

const WEBSOCKET = /\/connection\/websocket$/;

interface Streams {
  /** In the order of the attempts, after the WebSocket. */
  endpoints: TransportEndpoint[];
  /** Where the commands of a stream's client go. */
  emulation: string;
}

/** The streams beside a WebSocket's address; `given` replaces addresses, `false` turns the streams off. */
export function streamsOf(websocket: string, given: StreamAddresses | false = {}): Streams {
  const address = (path: string) => {
    const url = new URL(websocket);
    url.protocol = url.protocol === "wss:" ? "https:" : "http:";
    url.pathname = url.pathname.replace(WEBSOCKET, path);
    return url.toString();
  };
  if (given === false) return { endpoints: [], emulation: address("/emulation") };
  const { httpStream, sse, emulation } = given;
  return {
    endpoints: [
      { transport: "http_stream", endpoint: httpStream ?? address("/connection/http_stream") },
      { transport: "sse", endpoint: sse ?? address("/connection/sse") },
    ],
    emulation: emulation ?? address("/emulation"),
  };
}
