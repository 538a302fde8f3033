// The driver of centrifuge-js (npm package `centrifuge`): clients that read their orders from stdin and write their
// events to stdout, as described in ../driver.mjs. Runs in Node.js, with the npm packages `ws` and `eventsource` in the
// place of a browser's WebSocket and EventSource.

import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../node/package.json", import.meta.url));
const builds = { json: require("centrifuge").Centrifuge, protobuf: require("centrifuge/build/protobuf").Centrifuge };
const WebSocket = require("ws");
const { EventSource } = require("eventsource");

/** Payloads are JSON values in the JSON encoding, and bytes with JSON in Protobuf. */
const payloads = {
  json: { encode: (value) => value, decode: (data) => data },
  protobuf: {
    encode: (value) => new TextEncoder().encode(JSON.stringify(value)),
    decode: (bytes) => (bytes?.length ? JSON.parse(new TextDecoder().decode(bytes)) : undefined),
  },
};

const write = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

class Client {
  #answerToken; // resolves the SDK's pending getToken
  #answerState = new Map(); // and getState, by channel

  constructor(order) {
    const { encoding, transport, url, emulation, token, minDelay, maxDelay, timeout, pingDelay } = order;
    this.key = order.client;
    this.payload = payloads[encoding];
    const endpoint = transport === "websocket" && !emulation ? url : [{ transport, endpoint: url }];
    this.sdk = new builds[encoding](endpoint, {
      token,
      getToken: order.getToken ? () => this.#askForToken() : null,
      websocket: WebSocket,
      eventsource: EventSource,
      emulationEndpoint: emulation,
      minReconnectDelay: minDelay,
      maxReconnectDelay: maxDelay,
      timeout,
      ...(pingDelay && { maxServerPingDelay: pingDelay }),
    });
    this.sdk.on("connecting", ({ code, reason }) => this.emit("connecting", { code, reason }));
    this.sdk.on("connected", ({ client, transport: name }) => this.emit("connected", { id: client, transport: name }));
    this.sdk.on("disconnected", ({ code, reason }) => this.emit("disconnected", { code, reason }));
    this.sdk.on("error", ({ error }) => this.emit("error", { code: error.code, message: error.message }));
    this.sdk.connect();
  }

  emit(event, more) {
    write({ client: this.key, event, ...more });
  }

  #askForToken() {
    this.emit("token");
    return new Promise((resolve) => (this.#answerToken = resolve));
  }

  token({ token }) {
    this.#answerToken(token);
  }

  #askForState(channel) {
    this.emit("state", { channel });
    return new Promise((resolve) => this.#answerState.set(channel, resolve));
  }

  state({ channel, position }) {
    this.#answerState.get(channel)(position);
  }

  subscribe({ channel, joinLeave, delta, tagsFilter, getState, minDelay, maxDelay }) {
    const subscription = this.sdk.newSubscription(channel, {
      joinLeave,
      ...(delta && { delta }),
      ...(tagsFilter && { tagsFilter: { key: "a", cmp: "eq", val: "b" } }),
      ...(getState && { getState: () => this.#askForState(channel) }),
      minResubscribeDelay: minDelay,
      maxResubscribeDelay: maxDelay,
    });
    const emit = (event, more) => this.emit(event, { channel, ...more });
    subscription.on("subscribed", ({ wasRecovering, recovered, data }) =>
      emit("subscribed", { wasRecovering, recovered, data: this.payload.decode(data) }),
    );
    subscription.on("unsubscribed", ({ code, reason }) => emit("unsubscribed", { code, reason }));
    subscription.on("publication", (publication) => emit("publication", this.#publication(publication)));
    subscription.on("join", ({ info }) => emit("join", { user: info.user }));
    subscription.on("leave", ({ info }) => emit("leave", { user: info.user }));
    subscription.on("error", ({ error }) => emit("error", { code: error.code, message: error.message }));
    subscription.subscribe();
  }

  unsubscribe({ channel }) {
    this.sdk.getSubscription(channel).unsubscribe();
  }

  close() {
    this.sdk.disconnect();
  }

  #publication({ data, offset, info }) {
    return { data: this.payload.decode(data), offset: offset ?? 0, user: info?.user };
  }

  /** Orders with an answer. */
  calls = {
    publish: async ({ channel, data }) => {
      await this.sdk.getSubscription(channel).publish(this.payload.encode(data));
      return {};
    },
    history: async ({ channel, limit, since, reverse }) => {
      const result = await this.sdk.getSubscription(channel).history({ limit, since, reverse });
      const publications = result.publications.map((publication) => this.#publication(publication));
      return { publications, offset: result.offset, epoch: result.epoch };
    },
    presence: async ({ channel }) => {
      const { clients } = await this.sdk.getSubscription(channel).presence();
      return { users: Object.fromEntries(Object.entries(clients).map(([id, { user }]) => [id, user])) };
    },
    presenceStats: async ({ channel }) => {
      const { numClients, numUsers } = await this.sdk.getSubscription(channel).presenceStats();
      return { clients: numClients, users: numUsers };
    },
    rpc: async ({ method, data }) => {
      const result = await this.sdk.rpc(method, this.payload.encode(data));
      return { data: this.payload.decode(result.data) };
    },
  };

  async call(order) {
    const { client, call } = order;
    try {
      write({ client, call, result: await this.calls[order.do](order) });
    } catch (error) {
      write({ client, call, error: { code: error.code ?? 0, message: error.message ?? String(error) } });
    }
  }
}

const clients = new Map();
write({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === "open") clients.set(order.client, new Client(order));
  else if (order.call) clients.get(order.client).call(order);
  else clients.get(order.client)[order.do](order);
}
process.exit();
