// A driver is a program around one SDK, with any number of clients. Drivers read orders from stdin and write events and
// answers to stdout, as JSON objects, one a line; their first line is {"ready":true}. Payloads (`data`) are JSON values in
// every encoding.
//
//   order                                                    effect
//   {"do":"open","client":KEY,"url","encoding","token",…}    a new client, which connects; options: `getToken` (whether to
//                                                            ask for further tokens), delays in milliseconds, and for
//                                                            centrifuge-js `transport` and `emulation`
//   {"do":"token","client":KEY,"token"}                      the answer to the event "token"
//   {"do":"subscribe","client":KEY,"channel",…}              options: `joinLeave`, `delta`, `tagsFilter` (whether to filter
//                                                            by a tag), `getState` (whether to ask for states)
//   {"do":"state","client":KEY,"channel","position"}         the answer to the event "state"
//   {"do":"unsubscribe","client":KEY,"channel"}
//   {"do":"close","client":KEY}                              disconnects
//   {"do":METHOD,"client":KEY,"call":N,…}                    publish, history, presence, presenceStats or rpc; answers:
//                                                            {"client":KEY,"call":N,"result"} or
//                                                            {"client":KEY,"call":N,"error":{"code","message"}}
//
//   event: {"client":KEY,"event",…}
//   connecting, connected, disconnected, error               of the connection
//   token, state                                             the client wants a fresh token, or the state of a channel
//   subscribed, unsubscribed, publication, join, leave, error    of a subscription, with its `channel`

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Milliseconds until a condition about a client must hold. */
const PATIENCE = 20_000;

export class Driver {
  #clients = new Map();
  #log;

  constructor(lab, name, { program, args, env }) {
    this.name = name;
    this.#log = join(lab.folder, `${name}.log`);
    const log = openSync(this.#log, "a");
    this.process = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["pipe", "pipe", log] });
    closeSync(log);
    this.ended = new Promise((done) => {
      this.process.once("exit", (code, signal) => done(`exit ${signal ?? code}`));
      this.process.once("error", (error) => done(error.message));
    }).then((how) => {
      this.end = how;
      for (const client of this.#clients.values()) client.check();
    });
    this.process.stdin.on("error", () => {}); // 'exit' follows
    const lines = createInterface({ input: this.process.stdout });
    lines.on("line", (line) => this.#receive(line));
    /** Settles when the program reads orders, or has ended. */
    this.started = Promise.race([once(lines, "line"), this.ended]);
    lab.defer(() => this.stop());
  }

  #receive(line) {
    const { ready, client, ...event } = JSON.parse(line);
    if (!ready) this.#clients.get(client).receive(event);
  }

  send(order) {
    this.process.stdin.write(`${JSON.stringify(order)}\n`);
  }

  /** A new client, which connects. */
  open(options) {
    const client = new Client(this, String(this.#clients.size + 1));
    this.#clients.set(client.key, client);
    client.send({ do: "open", ...delays, ...options });
    return client;
  }

  get output() {
    return readFileSync(this.#log, "utf8");
  }

  async stop() {
    if (this.end) throw new Error(`the driver ${this.name} had ended: ${this.end}\n${this.output}`);
    this.process.stdin.end();
    const patience = setTimeout(() => this.process.kill("SIGKILL"), 15_000);
    await this.ended;
    clearTimeout(patience);
  }
}

/**
 * Milliseconds: short pauses between attempts, so that the tests need not wait; patience with replies, for a busy
 * machine.
 */
const delays = { minDelay: 50, maxDelay: 300, timeout: 15_000 };

/** One client of an SDK. */
class Client {
  /** All events, oldest first. */
  events = [];
  #driver;
  #calls = 0;
  #answers = new Map();
  #waiting = new Set();

  constructor(driver, key) {
    this.#driver = driver;
    this.key = key;
  }

  send(order) {
    this.#driver.send({ client: this.key, ...order });
  }

  receive(event) {
    if (event.call) this.#answers.set(event.call, event);
    else this.events.push(event);
    this.check();
  }

  check() {
    for (const waiting of this.#waiting) waiting();
  }

  /** Waits until `condition` returns a truthy value, and returns this value. */
  until(condition, what, milliseconds = PATIENCE) {
    return new Promise((resolve, reject) => {
      const fail = (why) => {
        finish();
        reject(new Error(`${why} in vain for ${what}; the events were ${this.#story()}`));
      };
      const timer = setTimeout(() => fail(`waited ${milliseconds} ms`), milliseconds);
      const finish = () => {
        clearTimeout(timer);
        this.#waiting.delete(attempt);
      };
      const attempt = () => {
        const value = condition();
        if (value) {
          finish();
          resolve(value);
        } else if (this.#driver.end) {
          fail(`the driver ended (${this.#driver.end}: ${this.#driver.output}), and one waited`);
        }
      };
      this.#waiting.add(attempt);
      attempt();
    });
  }

  #story() {
    return this.events.map((event) => `\n  ${JSON.stringify(event).slice(0, 300)}`).join("") || "none";
  }

  /** The events of a kind, of the connection or of a channel. */
  all(event, channel) {
    return this.events.filter((it) => it.event === event && it.channel === channel);
  }

  /** The event number `n` (from 0) of a kind. */
  nth(n, event, channel) {
    return this.until(
      () => this.all(event, channel)[n],
      `"${event}" number ${n + 1} of ${channel ?? "the connection"}`,
    );
  }

  connected(n = 0) {
    return this.nth(n, "connected");
  }

  startSubscribing(channel, options) {
    this.send({ do: "subscribe", channel, ...delays, ...options });
  }

  /** Subscribes, and waits for the reply. */
  async subscribe(channel, options) {
    this.startSubscribing(channel, options);
    return this.nth(0, "subscribed", channel);
  }

  publications(channel) {
    return this.all("publication", channel);
  }

  /** The contents of the messages that were published in the channel. */
  messages(channel) {
    const of = ({ data }) => (data.collection === "messages" ? [data.record.content] : []);
    return this.publications(channel).flatMap(of);
  }

  arrival(channel, content) {
    return this.until(() => this.messages(channel).includes(content), `"${content.slice(0, 40)}" to arrive`);
  }

  /** Calls a method. Repeats the call after error 100, the temporary answer while access to the room is checked. */
  async #call(method, more) {
    for (const deadline = Date.now() + PATIENCE; ; ) {
      const call = ++this.#calls;
      this.send({ do: method, call, ...more });
      const answer = await this.until(() => this.#answers.get(call), `the answer to ${method}`);
      if (answer.error?.code !== 100 || Date.now() > deadline) return answer;
    }
  }

  /** The result of a method. */
  async call(method, more) {
    const { result, error } = await this.#call(method, more);
    if (error) throw new Error(`${method} failed: ${JSON.stringify(error)}`);
    return result;
  }

  /** The error of a method that must fail. */
  async failure(method, more) {
    const { result, error } = await this.#call(method, more);
    if (!error) throw new Error(`${method} must fail, but answered ${JSON.stringify(result)}`);
    return error;
  }

  close() {
    this.send({ do: "close" });
  }
}
