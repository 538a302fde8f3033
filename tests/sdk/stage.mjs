// PocketBase and gateways in two topologies, and the clients and records that scenarios create there.

import { Cable, Lab, freePort } from "../node/harness.mjs";
import { PASSWORD } from "../pocketbase/harness.mjs";
import { Driver } from "./driver.mjs";
import { sdks } from "./sdks.mjs";

/** Seconds that a connection outlives its token: few, since a test waits for their end. */
export const GRACE = 3;
const base = { GATEWAY_TOKEN_GRACE: String(GRACE) };

export const topologies = {
  "one gateway": async (lab) => {
    const port = await freePort();
    const pocketbase = await lab.pocketbase(`http://127.0.0.1:${port}`);
    const gateway = await lab.gateway("gateway", { port, pocketbase, env: base });
    return { pocketbase, gateways: [gateway] };
  },
  // The hooks post to the first gateway. The ping interval is short enough for clients to notice a stall of 5 s.
  "two gateways on one Redis": async (lab) => {
    const [portA, portB, redisUrl] = [await freePort(), await freePort(), await lab.redis()];
    const pocketbase = await lab.pocketbase(`http://127.0.0.1:${portA}`);
    const env = { ...base, GATEWAY_PING_INTERVAL: "4", GATEWAY_PONG_TIMEOUT: "3" };
    const a = await lab.gateway("gateway-a", { port: portA, pocketbase, redisUrl, env });
    const b = await lab.gateway("gateway-b", { port: portB, pocketbase, redisUrl, env });
    return { pocketbase, gateways: [a, b] };
  },
};

/** A topology's servers, and the drivers that connect to these servers. */
export class Stage {
  #lab = new Lab();
  #drivers = new Map();
  #names = 0;

  async start(topology) {
    Object.assign(this, await topologies[topology](this.#lab));
  }

  stop() {
    return this.#lab.stop();
  }

  /** Runs the body; prints the last lines of the servers' logs if the body fails. */
  explained(body) {
    return this.#lab.explained(body)();
  }

  /** The running driver of an SDK. */
  async #driver({ sdk, driver }) {
    if (!this.#drivers.has(sdk)) this.#drivers.set(sdk, new Driver(this.#lab, sdk, driver));
    await this.#drivers.get(sdk).started;
    return this.#drivers.get(sdk);
  }

  /** A new user with a token, made without a login, since a login costs PocketBase a tenth of a second of CPU time. */
  async user() {
    const email = `user${++this.#names}@example.com`;
    const { id } = await this.pocketbase.create("users", { email, password: PASSWORD, passwordConfirm: PASSWORD });
    return { id, email, token: await this.token({ id }, 3600) };
  }

  /** A token of the user that is valid for some seconds. */
  async token({ id }, seconds) {
    const path = `/api/collections/users/impersonate/${id}`;
    const { status, body } = await this.pocketbase.call("POST", path, { duration: seconds }, this.pocketbase.root);
    if (status !== 200) throw new Error(`no token: ${status} ${JSON.stringify(body)}`);
    return body.token;
  }

  /** A token from a login with the password. */
  async login({ email }) {
    return (await this.pocketbase.login(email, PASSWORD)).token;
  }

  async room(owner, ...members) {
    const { id } = await this.pocketbase.create("rooms", { name: "Room", type: "private", owner: owner.id });
    const memberships = [];
    for (const { id: user } of members) {
      memberships.push(await this.pocketbase.create("room_members", { room: id, user, role: "member" }));
    }
    return { id, channel: `room:${id}`, memberships };
  }

  write(author, content, { id: room }) {
    return this.pocketbase.create("messages", { room, author: author.id, content, type: "text" }, author);
  }

  /**
   * A client of the SDK under test, connected through a cable to the last gateway. An HTTP stream sends its commands as
   * requests of their own, through another cable to the first gateway.
   */
  async open(t, sdk, token, options) {
    const { encoding, transport } = sdk;
    const [first, last] = [this.gateways[0], this.gateways.at(-1)].map(({ port }) => port);
    const cable = await Cable.to(last);
    const cables = [cable];
    const url = `${transport === "websocket" ? "ws" : "http"}://127.0.0.1:${cable.port}/connection/${transport}`;
    const order = { url, encoding, transport, token, ...options };
    if (transport !== "websocket") {
      const requests = await Cable.to(first);
      cables.push(requests);
      order.emulation = `http://127.0.0.1:${requests.port}/emulation`;
    }
    t.after(() => Promise.all(cables.map((it) => it.close())));
    const client = (await this.#driver(sdk)).open(order);
    t.after(() => client.close());
    client.network = {
      cut: () => cables.forEach((it) => it.cut()),
      mend: () => cables.forEach((it) => it.mend()),
      stall: () => cables.forEach((it) => it.stall()),
      resume: () => cables.forEach((it) => it.resume()),
      /** Leads new connections to the other gateway, if there are two. */
      swap: () => cables.forEach((it) => it.leadTo(it.target === first ? last : first)),
    };
    return client;
  }

  /** A client of centrifuge-js on the first gateway, in the other encoding than the SDK under test. */
  async peer(t, { encoding }, token) {
    const other = sdks.find((it) => it.sdk === "js" && it.transport === "websocket" && it.encoding !== encoding);
    const order = { url: this.gateways[0].websocket, encoding: other.encoding, transport: "websocket", token };
    const client = (await this.#driver(other)).open(order);
    t.after(() => client.close());
    return client;
  }
}
