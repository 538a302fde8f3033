// Thousands of WebSocket clients with as little work per client as possible: a socket, a connect, a subscribe.

import net from "node:net";
import tls from "node:tls";

export class Swarm {
  sockets = [];
  /** Status codes of refused handshakes. */
  refused = [];
  /** Clients that have got the publication that contains the mark. */
  received = 0;
  #mark = null;

  constructor({ host, port, token, channel, ca, path = "/connection/websocket" }) {
    Object.assign(this, { host, port, token, channel, ca, path });
  }

  /** Adds clients in batches; resolves when all are subscribed or refused. `localAddress` is their own address. */
  async add(count, { localAddress, batch = 250 } = {}) {
    for (let done = 0; done < count; done += batch) {
      await Promise.all(Array.from({ length: Math.min(batch, count - done) }, () => this.#one(localAddress)));
    }
  }

  /** From now on counts the clients that get a publication with this text. */
  await(mark) {
    this.#mark = mark;
    this.received = 0;
  }

  #one(localAddress) {
    return new Promise((resolve, reject) => {
      const options = { host: this.host, port: this.port, localAddress };
      const socket = this.ca
        ? tls.connect({ ...options, ca: this.ca, checkServerIdentity: () => undefined })
        : net.connect(options);
      let state = "handshake";
      const opened = () =>
        socket.write(
          `GET ${this.path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
      socket.setNoDelay(true);
      socket.on(this.ca ? "secureConnect" : "connect", opened);
      socket.on("error", reject);
      socket.on("close", () => reject(new Error(`closed while ${state}`)));
      socket.on("data", (chunk) => {
        const text = chunk.toString("latin1");
        if (state === "handshake") {
          const status = Number(text.slice(9, 12));
          if (status !== 101) {
            this.refused.push(status);
            socket.removeAllListeners("close");
            socket.destroy();
            return resolve();
          }
          state = "subscribing";
          const commands = [
            { id: 1, connect: { token: this.token } },
            { id: 2, subscribe: { channel: this.channel } },
          ];
          socket.write(frame(commands.map((command) => JSON.stringify(command)).join("\n")));
        }
        if (state === "subscribing" && text.includes('"error"')) reject(new Error(text));
        if (state === "subscribing" && text.includes('"subscribe"')) {
          state = "subscribed";
          this.sockets.push(socket);
          resolve();
        }
        if (this.#mark && text.includes(this.#mark)) this.received += 1;
        if (text.endsWith("{}")) socket.write(frame("{}")); // a ping
      });
    });
  }

  close() {
    for (const socket of this.sockets) {
      socket.removeAllListeners("close");
      socket.on("error", () => {});
      socket.destroy();
    }
  }
}

/** A masked text frame; the mask is zero. */
function frame(text) {
  const body = Buffer.from(text);
  const head =
    body.length < 126
      ? Buffer.from([0x81, 0x80 | body.length])
      : Buffer.from([0x81, 0x80 | 126, body.length >> 8, body.length & 255]);
  return Buffer.concat([head, Buffer.alloc(4), body]);
}
