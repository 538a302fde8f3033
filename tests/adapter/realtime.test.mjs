// The realtime part and the outbox of PocketBaseAdapter, through interruptions of every link.

import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { Cable } from "../node/harness.mjs";
import {
  PocketBaseClient,
  PASSWORD,
  Stage,
  Storage,
  WebSocket,
  collector,
  createRealtime,
  readme,
  until,
} from "./stage.mjs";

const DEADLINE = 60_000;
let stage, anna, boris, room;

before(async () => {
  stage = await Stage.start();
  [anna, boris] = await Promise.all([stage.user("anna"), stage.user("boris")]);
  ({ room } = await anna.adapter.createRoom("Plans", "private", [boris.id]));
});
after(() => stage?.stop());

/** Another device of a user, behind a cable to PocketBase or to the gateway if given. */
async function device(user, options = {}) {
  const adapter = stage.adapter(options);
  await adapter.signin(user.email, PASSWORD);
  return adapter;
}
async function cable(port) {
  const made = await Cable.to(port);
  stage.lab.defer(() => made.close());
  return { cable: made, url: `http://127.0.0.1:${made.server.address().port}` };
}
const pocketbasePort = () => Number(new URL(stage.pocketbase.url).port);
const contents = (seen) => seen.map(({ content }) => content);

/** Subscribes and waits until the subscription is ready. */
async function watch(adapter, roomId, handlers = {}) {
  const [seen, ready] = [collector(), collector()];
  const end = adapter.subscribeToRoom(roomId, seen, { ...handlers, onReady: () => ready(true) });
  await ready.until(Boolean, "the subscription", DEADLINE);
  return { seen, ready, end };
}

describe("createRealtime", () => {
  test("the README's example, at most 15 lines, as printed", async () => {
    const [, block] = readme.match(/^```js\n(.*?)^```$/ms);
    assert.ok(block.trim().split("\n").length <= 15, "15 lines");
    const lines = [];
    const code = block
      .replace(/^import .*$/m, "")
      .replace("http://127.0.0.1:8000", `http://127.0.0.1:${stage.port}`)
      .replaceAll("ROOM", room.id)
      .replaceAll("USER", boris.id);
    globalThis.WebSocket ??= WebSocket;
    const { pocketbase } = anna.adapter;
    const run = new Function("createRealtime", "pocketbase", "console", `${code}; return realtime;`);
    const realtime = run(createRealtime, pocketbase, { log: (...words) => lines.push(words.join(" ")) });
    stage.lab.defer(async () => realtime.close());
    await until(() => lines.includes("ready: load the records now"), "ready", DEADLINE);
    const end = boris.adapter.subscribeToRoom(room.id, () => {});
    const { message } = await boris.adapter.sendMessage(room.id, "seen by the example");
    await until(() => lines.includes(`create messages ${message.id}`), "the event", DEADLINE);
    await until(() => lines.includes("status online"), "the status", DEADLINE);
    await until(
      () => {
        boris.adapter.sendTyping(room.id);
        return lines.includes(`typing ${boris.id}`);
      },
      "the typing notice",
      DEADLINE,
    );
    end();
    realtime.close();
  });

  test("several listeners share a subscription; the last one ends it", async () => {
    const realtime = createRealtime({
      pocketbase: anna.adapter.pocketbase,
      url: `http://127.0.0.1:${stage.port}`,
      websocket: WebSocket,
    });
    const [first, second, readies] = [collector(), collector(), collector()];
    const channel = `room:${room.id}`;
    const ends = [realtime.subscribe(channel, { onEvent: first, onReady: () => readies(1) })];
    await readies.until((n) => n === 1, "the first", DEADLINE);
    ends.push(realtime.subscribe(channel, { onEvent: second, onReady: () => readies(2) }));
    await readies.until((n) => n === 2, "the second", DEADLINE);
    assert.deepEqual(readies.seen, [1, 2], "the first listener is not welcomed again");
    const { message } = await boris.adapter.sendMessage(room.id, "for two");
    for (const seen of [first, second])
      await seen.until(({ record }) => record.id === message.id, "the event", DEADLINE);
    ends[0]();
    const { message: next } = await boris.adapter.sendMessage(room.id, "for one");
    await second.until(({ record }) => record.id === next.id, "the event", DEADLINE);
    assert.ok(!first.seen.some(({ record }) => record.id === next.id));
    assert.ok(realtime.metrics().delivered >= 2);
    assert.ok(realtime.metrics().medianLatencyMs !== null);
    ends[1]();
    await assert.rejects(realtime.presence(channel), { code: "invalid" });
    realtime.close();
    assert.equal(realtime.state().state, "idle");
  });

  test("without a login nothing connects; a login connects, a log-out closes", async () => {
    const adapter = stage.adapter();
    const states = collector();
    adapter.onConnectionState(({ state }) => states(state));
    const end = adapter.subscribeToRoomUpdates(() => {});
    assert.equal(adapter.connectionState().state, "idle");
    await adapter.signin(anna.email, PASSWORD);
    await until(() => adapter.connectionState().state === "connected", "the connection", DEADLINE);
    await adapter.signout();
    assert.equal(adapter.connectionState().state, "idle");
    assert.deepEqual(states.seen, ["connecting", "connected", "idle"]);
    end();
  });
});

describe("the end of a login", () => {
  const ended = async (end, code) => {
    const victim = await stage.user("victim");
    const [errors, changes] = [collector(), collector()];
    victim.adapter.onAuthChange(changes);
    victim.adapter.subscribeToUser({ onError: errors });
    await until(() => victim.adapter.connectionState().state === "connected", "the connection", DEADLINE);
    await end(victim);
    const error = await errors.until(Boolean, "the error", DEADLINE);
    assert.deepEqual([error.name, error.code], ["UnauthorizedError", code]);
    const { state, error: shown } = victim.adapter.connectionState();
    assert.deepEqual([state, shown.code], ["closed", code]);
    assert.deepEqual(changes.seen, [null], "the chat learns that nobody is logged in");
    const connections = await stage.gateway.metric("gateway_connections");
    victim.adapter.subscribeToRoom(room.id, () => {});
    assert.equal(victim.adapter.connectionState().state, "closed", "nothing is retried");
    assert.ok((await stage.gateway.metric("gateway_connections")) <= connections);
    return victim;
  };

  test("a ban ends the connection with an UnauthorizedError", async () => {
    await stage.promote(boris.id, "moderator");
    const victim = await ended(({ id }) => boris.adapter.banUser(id), "banned"); // without an end
    await boris.adapter.unbanUser(victim.id);
    await victim.adapter.signin(victim.email, PASSWORD);
    await until(
      () => victim.adapter.connectionState().state === "connected",
      "the connection after a new login",
      DEADLINE,
    );
  });
  test("a new password ends it on other devices", () =>
    ended(
      ({ id }) =>
        stage.pocketbase.update("users", id, { password: "another-password", passwordConfirm: "another-password" }),
      "unauthorized",
    ));
  test("so does a deleted account", () => ended(({ id }) => stage.pocketbase.remove("users", id), "unauthorized"));
});

/** A proxy to the gateway that refuses WebSockets: it closes connections that ask for an upgrade. */
async function withoutWebSockets() {
  const proxy = http.createServer((request, response) => {
    const { url: path, method, headers } = request;
    const forward = http.request({ host: "127.0.0.1", port: stage.port, path, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      response.on("close", () => answer.destroy());
    });
    forward.on("error", () => response.destroy());
    request.pipe(forward);
  });
  proxy.on("upgrade", (_, socket) => socket.destroy());
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  stage.lab.defer(async () => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return `http://127.0.0.1:${proxy.address().port}`;
}

test("messages of an author who has to be read first stay in order, also if a later read is answered first", async () => {
  const adapter = await device(boris);
  const { seen, end } = await watch(adapter, room.id);
  let reads = 0;
  adapter.pocketbase.beforeSend = async (url, options) => {
    if (url.includes("/api/collections/users/records") && ++reads === 1)
      await new Promise((go) => setTimeout(go, 1000));
    return { url, options };
  };
  const author = await stage.user("olga");
  await anna.adapter.inviteToRoom(room.id, author.id);
  const texts = [1, 2, 3].map((n) => `by a new author ${n}`);
  for (const text of texts) await author.adapter.sendMessage(room.id, text);
  const sent = () => contents(seen.seen).filter((content) => texts.includes(content));
  await until(() => sent().length === texts.length, "the messages", DEADLINE);
  assert.deepEqual(sent(), texts);
  assert.ok(reads > 0, "the author was read");
  end();
});

describe("a network without WebSockets", () => {
  test("the gateway is reached by a stream, with all of its functions", async () => {
    const config = { gatewayUrl: await withoutWebSockets(), transport: "auto" };
    const adapter = await device(boris, { config, fallbackAfter: DEADLINE });
    const [errors, typing, present] = [collector(), collector(), collector()];
    const { seen, end } = await watch(adapter, room.id, { onError: errors, onTyping: typing, onPresence: present });
    const { state, transport, link } = adapter.connectionState();
    assert.deepEqual([state, transport, link], ["connected", "gateway", "http_stream"]);
    const texts = [1, 2, 3, 4, 5].map((n) => `by a stream ${n}`);
    for (const text of texts) await anna.adapter.sendMessage(room.id, text);
    await seen.until(({ content }) => content === texts.at(-1), "the last message", DEADLINE);
    assert.deepEqual(contents(seen.seen), texts);
    await present.until((ids) => ids.includes(boris.id), "the presence", DEADLINE);
    await adapter.setStatus("dnd");
    assert.equal((await adapter.getStatus()).mode, "dnd");
    await adapter.setStatus("online");
    const endOther = anna.adapter.subscribeToRoom(room.id, () => {}, { onTyping: typing });
    await until(
      () => {
        adapter.sendTyping(room.id);
        return typing.seen.some(({ userId }) => userId === boris.id);
      },
      "the typing notice",
      DEADLINE,
    );
    assert.deepEqual(errors.seen, []);
    endOther();
    end();
  });

  test("the streams' addresses can be given, and the streams turned off", async () => {
    const { pocketbase } = anna.adapter;
    const [blocked, direct] = [await withoutWebSockets(), `http://127.0.0.1:${stage.port}`];
    const connect = (options) => {
      const realtime = createRealtime({ pocketbase, url: blocked, websocket: WebSocket, ...options });
      stage.lab.defer(async () => realtime.close());
      realtime.subscribe(`room:${room.id}`, {});
      return realtime;
    };
    const nowhere = `${blocked}/nowhere`;
    const sse = `${direct}/connection/sse`;
    const given = connect({ streams: { httpStream: nowhere, sse, emulation: `${direct}/emulation` } });
    await until(() => given.state().state === "connected", "the connection", DEADLINE);
    assert.equal(given.state().link, "sse");
    await given.setIdle(true); // a command, by the given address
    given.close();

    const off = connect({ streams: false, fallbackAfter: 300 });
    await until(() => off.state().state === "connected", "the reserve", DEADLINE);
    assert.deepEqual([off.state().transport, off.state().link], ["pocketbase", undefined]);
    off.close();
  });
});

test("a token that ends soon is renewed by authRefresh, and the connection stays", async () => {
  const { pocketbase } = stage;
  const setDuration = async (duration) => {
    const answer = await pocketbase.call(
      "PATCH",
      "/api/collections/users",
      { authToken: { duration } },
      pocketbase.root,
    );
    assert.equal(answer.status, 200);
  };
  const states = collector();
  const adapter = stage.adapter();
  await setDuration(10);
  await adapter.signin(boris.email, PASSWORD);
  await setDuration(604_800); // the renewed token is a long one
  const { token } = adapter.pocketbase.authStore;
  adapter.onConnectionState(({ state }) => states(state));
  const { end } = await watch(adapter, room.id);
  await until(() => adapter.pocketbase.authStore.token !== token, "the new token", DEADLINE);
  await until(() => adapter.metrics().pingMs !== null, "an answer of the gateway", DEADLINE);
  assert.deepEqual(states.seen, ["connecting", "connected"]);
  end();
});

describe("interruptions", () => {
  test("a cut line to the gateway: everything follows in order, nothing twice", async () => {
    const line = await cable(stage.port);
    const adapter = await device(boris, { config: { gatewayUrl: line.url } });
    const resyncs = collector();
    const { seen, end } = await watch(adapter, room.id, { onResync: resyncs });
    await anna.adapter.sendMessage(room.id, "cut 0");
    await seen.until(({ content }) => content === "cut 0", "the message before", DEADLINE);
    line.cable.cut();
    await until(() => adapter.connectionState().state === "reconnecting", "the interruption", DEADLINE);
    for (let i = 1; i <= 5; i++) await anna.adapter.sendMessage(room.id, `cut ${i}`);
    line.cable.mend();
    await seen.until(({ content }) => content === "cut 5", "the last message", DEADLINE);
    assert.deepEqual(contents(seen.seen), ["cut 0", "cut 1", "cut 2", "cut 3", "cut 4", "cut 5"]);
    assert.deepEqual(resyncs.seen, []);
    assert.ok(adapter.metrics().recovered > 0 && adapter.metrics().reconnects > 0);
    end();
  });

  test("a device that wakes up renews its connection at once", async () => {
    const { pocketbase } = anna.adapter;
    const realtime = createRealtime({
      pocketbase,
      url: `http://127.0.0.1:${stage.port}`,
      websocket: WebSocket,
      wakeAfter: 400,
    });
    const [seen, ready] = [collector(), collector()];
    realtime.subscribe(`room:${room.id}`, { onEvent: seen, onReady: () => ready(true) });
    await ready.until(Boolean, "the subscription", DEADLINE);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500); // the process stands still, as in a sleep
    await until(
      () => realtime.metrics().reconnects > 0 && realtime.state().state === "connected",
      "the new connection",
      DEADLINE,
    );
    const { message } = await boris.adapter.sendMessage(room.id, "good morning");
    await seen.until(({ record }) => record.id === message.id, "the event", DEADLINE);
    realtime.close();
  });

  test("a killed gateway without Redis: subscribers learn to load again", async () => {
    const [resyncs] = [collector()];
    const { seen, end } = await watch(boris.adapter, room.id, { onResync: resyncs });
    await anna.adapter.sendMessage(room.id, "before the kill");
    await seen.until(({ content }) => content === "before the kill", "the message", DEADLINE);
    await stage.gateway.stop("SIGKILL");
    const { message } = await anna.adapter.sendMessage(room.id, "while it was down");
    assert.equal(message.state, undefined, "PocketBase alone stores messages");
    stage.gateway = await stage.startGateway();
    await until(
      () => seen.seen.some(({ id }) => id === message.id) || resyncs.seen.includes("missed"),
      "the message, or the word to load",
      DEADLINE,
    );
    const { messages } = await boris.adapter.getMessages(room.id, 10);
    assert.ok(messages.some(({ id }) => id === message.id));
    end();
  });

  test("PocketBase's own realtime: messages, reactions, rooms with the same callbacks", async () => {
    const adapter = await device(boris, { config: { transport: "pocketbase" } });
    const [gone, resyncs, errors] = [collector(), collector(), collector()];
    const { seen, end } = await watch(adapter, room.id, { onDelete: gone, onResync: resyncs, onError: errors });
    assert.equal(adapter.connectionState().transport, "pocketbase");
    const { message } = await anna.adapter.sendMessage(room.id, "over events");
    const facts = () => JSON.stringify([adapter.connectionState(), resyncs.seen, errors.seen, seen.seen]);
    await seen
      .until(({ id, content }) => id === message.id && content === "over events", "the message", DEADLINE)
      .catch((error) => assert.fail(`${error.message}: ${facts()}`));
    await anna.adapter.addReaction(message.id, "👍");
    await seen.until(({ id, reactions }) => id === message.id && reactions["👍"], "the reaction", DEADLINE);
    await anna.adapter.editMessage(message.id, "over events, edited");
    await seen.until(({ edited }) => edited, "the edit", DEADLINE);
    await anna.adapter.deleteMessage(message.id);
    await gone.until((id) => id === message.id, "the delete", DEADLINE);
    const lists = collector();
    const endList = adapter.subscribeToRoomUpdates(lists);
    await lists.until(Boolean, "the list", DEADLINE);
    const { room: hall } = await anna.adapter.createRoom("By events", "private", [boris.id]);
    await lists.until((rooms) => rooms.some(({ id }) => id === hall.id), "the invitation", DEADLINE);
    await assert.rejects(adapter.setStatus("dnd"), { code: "unsupported" });
    endList();
    end();
  });

  test("without the gateway PocketBase stands in; the gateway takes over again", async () => {
    const line = await cable(stage.port);
    const adapter = await device(boris, { config: { gatewayUrl: line.url, transport: "auto" }, fallbackAfter: 300 });
    const resyncs = collector();
    const { seen, end } = await watch(adapter, room.id, { onResync: resyncs });
    assert.equal(adapter.connectionState().transport, "gateway");
    line.cable.cut();
    await until(
      () => adapter.connectionState().transport === "pocketbase" && adapter.connectionState().state === "connected",
      "the reserve",
      DEADLINE,
    );
    assert.ok(resyncs.seen.includes("transport"), "what fell between is to be loaded");
    await anna.adapter.sendMessage(room.id, "through the reserve");
    await seen.until(({ content }) => content === "through the reserve", "the message", DEADLINE);
    line.cable.mend();
    await until(() => adapter.connectionState().transport === "gateway", "the gateway", DEADLINE);
    await anna.adapter.sendMessage(room.id, "through the gateway");
    await seen.until(({ content }) => content === "through the gateway", "the message", DEADLINE);
    const ids = seen.seen.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length, "nothing is shown twice");
    end();
  });
});

describe("messages while the network is away", () => {
  /** PocketBase's listed messages with this content. */
  const stored = async (content) => {
    const filter = encodeURIComponent(`content = '${content}'`);
    return (await stage.pocketbase.list("messages", stage.pocketbase.root, `filter=${filter}`)).items;
  };

  test("kept, shown as pending, sent in order and once, also after a restart of the device", async () => {
    const line = await cable(pocketbasePort());
    const storage = new Storage();
    const first = await device(anna, { config: { url: line.url }, storage });
    const { token, record } = first.pocketbase.authStore;
    line.cable.cut();
    const seen = collector();
    first.subscribeToRoom(room.id, seen);
    const results = [];
    for (const content of ["offline 1", "offline 2"]) results.push((await first.sendMessage(room.id, content)).message);
    assert.deepEqual(
      results.map(({ state }) => state),
      ["pending", "pending"],
    );
    assert.deepEqual(
      seen.seen.map(({ content, state }) => [content, state]),
      [
        ["offline 1", "pending"],
        ["offline 2", "pending"],
      ],
    );
    first.close();

    line.cable.mend();
    const pocketbase = new PocketBaseClient(line.url);
    pocketbase.authStore.save(token, record);
    const second = stage.adapter({ config: { url: line.url }, storage, pocketbase });
    await until(() => second.getPendingMessages().length === 0, "the delivery", DEADLINE);
    const { messages } = await second.getMessages(room.id, 2);
    assert.deepEqual(
      messages.map(({ id, content, state }) => [id, content, state]),
      [
        [results[0].id, "offline 1", undefined],
        [results[1].id, "offline 2", undefined],
      ],
    );
    for (const content of ["offline 1", "offline 2"]) assert.equal((await stored(content)).length, 1);
  });

  test("a message whose answer was lost is stored once", async () => {
    let lost = 0;
    const proxy = http.createServer((request, response) => {
      const forward = http.request(
        stage.pocketbase.url + request.url,
        { method: request.method, headers: request.headers },
        (reply) => {
          if (request.method === "POST" && request.url.includes("/collections/messages/records") && lost++ === 0) {
            reply.resume();
            reply.on("end", () => response.destroy());
            return;
          }
          response.writeHead(reply.statusCode, reply.headers);
          reply.pipe(response);
        },
      );
      request.pipe(forward);
    });
    proxy.listen(0, "127.0.0.1");
    await once(proxy, "listening");
    stage.lab.defer(async () => {
      proxy.closeAllConnections();
      proxy.close();
    });
    const adapter = await device(anna, { config: { url: `http://127.0.0.1:${proxy.address().port}` } });
    const { message } = await adapter.sendMessage(room.id, "answer lost");
    assert.equal(message.state, "pending");
    await until(() => adapter.getPendingMessages().length === 0, "the second attempt", DEADLINE);
    assert.ok(lost >= 2, "a second attempt was made");
    assert.deepEqual(
      (await stored("answer lost")).map(({ id }) => id),
      [message.id],
    );
  });

  test("two tabs with one store send a message once, and both forget it", async () => {
    const line = await cable(pocketbasePort());
    const storage = new Storage();
    const tabs = [
      await device(anna, { config: { url: line.url }, storage }),
      await device(anna, { config: { url: line.url }, storage }),
    ];
    line.cable.cut();
    await tabs[0].sendMessage(room.id, "from two tabs");
    await tabs[1].sendMessage(room.id, "from the second tab");
    line.cable.mend();
    await until(() => storage.getItem(`konvert.outbox.${anna.id}`) === null, "the delivery", DEADLINE);
    for (const content of ["from two tabs", "from the second tab"])
      assert.equal((await stored(content)).length, 1, content);
  });

  test("a discarded message is not sent, and signout forgets all", async () => {
    const line = await cable(pocketbasePort());
    const storage = new Storage();
    const adapter = await device(anna, { config: { url: line.url }, storage });
    line.cable.cut();
    const { message } = await adapter.sendMessage(room.id, "discarded");
    adapter.discardMessage(message.id);
    assert.deepEqual(adapter.getPendingMessages(), []);
    await adapter.sendMessage(room.id, "forgotten");
    await adapter.signout();
    assert.equal(storage.getItem(`konvert.outbox.${anna.id}`), null);
    line.cable.mend();
    await anna.adapter.sendMessage(room.id, "after");
    assert.deepEqual([await stored("discarded"), await stored("forgotten")], [[], []]);
  });
});
