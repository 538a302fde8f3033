// The published `centrifuge` package over HTTP streams and server-sent events, in Node.js and in a real Chromium, with two
// gateways on one Redis: streams are opened at gateway A, and commands are sent to gateway B.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import { after, before, test } from "node:test";
import { Centrifuge } from "centrifuge";
import { Centrifuge as CentrifugeProtobuf } from "centrifuge/build/protobuf";
import { startBrowser } from "./browser.mjs";
import { Cable, Lab, freePort, next, until } from "./harness.mjs";

const lab = new Lab();
const check = (name, body) => test(name, lab.explained(body));
const script = readFileSync(new URL("./node_modules/centrifuge/dist/centrifuge.js", import.meta.url));
let pocketbase, a, b, alice, bob, room, site, browser;

before(
  lab.explained(async () => {
    const [portA, portB, redisUrl] = [await freePort(), await freePort(), await lab.redis()];
    pocketbase = await lab.pocketbase(`http://127.0.0.1:${portA}`);
    site = await Site.start(lab, portA);
    const env = { GATEWAY_ALLOWED_ORIGINS: site.origin };
    a = await lab.gateway("gateway-a", { port: portA, pocketbase, redisUrl, env });
    b = await lab.gateway("gateway-b", { port: portB, pocketbase, redisUrl, env });
    [alice, bob] = [await pocketbase.user("alice"), await pocketbase.user("bob")];
    ({ id: room } = await pocketbase.create("rooms", { name: "Room", type: "private", owner: alice.id }, alice));
    await pocketbase.create("room_members", { room, user: bob.id, role: "member" }, alice);
    browser = await startBrowser(lab);
  }),
);
after(() => lab.stop());

/**
 * A web site with a page, and a proxy to the gateway that breaks WebSockets: it closes connections that ask for an
 * upgrade. Paths in `blocked` get 502.
 */
class Site {
  blocked = new Set();

  static async start(lab, gateway) {
    const site = new Site();
    const server = http.createServer((request, response) => site.#answer(request, response, gateway));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    lab.defer(async () => {
      server.closeAllConnections();
      server.close();
    });
    site.origin = `http://127.0.0.1:${server.address().port}`;
    return site;
  }

  #answer(request, response, port) {
    const { url, method, headers } = request;
    if (url === "/") return response.setHeader("content-type", "text/html").end("<script src=centrifuge.js></script>");
    if (url === "/centrifuge.js") return response.end(script);
    if (this.blocked.has(url.split("?")[0])) return response.writeHead(502).end();
    const forward = http.request({ host: "127.0.0.1", port, path: url, method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      response.on("close", () => answer.destroy());
    });
    forward.on("error", () => response.destroy());
    request.pipe(forward);
  }
}

const write = (user, content) => pocketbase.create("messages", { room, author: user.id, content, type: "text" }, user);

const http_ = (server) => server.websocket.replace("ws:", "http:").replace("/connection/websocket", "");

for (const [encoding, Sdk] of [
  ["JSON", Centrifuge],
  ["Protobuf", CentrifugeProtobuf],
]) {
  check(`the SDK chats over an HTTP stream in ${encoding}`, async (t) => {
    const cable = await Cable.to(a.port);
    t.after(() => cable.close());
    const endpoint = cable.websocket.replace("ws:", "http:").replace("websocket", "http_stream");
    const client = new Sdk([{ transport: "http_stream", endpoint }], {
      emulationEndpoint: `${http_(b)}/emulation`,
      token: bob.token,
      minReconnectDelay: 50,
      maxReconnectDelay: 300,
    });
    t.after(() => client.disconnect());
    const messages = [];
    const room_ = client.newSubscription(`room:${room}`);
    room_.on("publication", ({ data }) => data.collection === "messages" && messages.push(data.record.content));
    const [connected, subscribed] = [next(client, "connected"), next(room_, "subscribed")];
    client.connect();
    room_.subscribe();
    assert.equal((await connected).transport, "http_stream");
    await subscribed;

    const texts = Array.from({ length: 20 }, (_, n) => `${encoding} ${n} é🦀`);
    for (const text of texts) await write(alice, text);
    await until(() => messages.length === texts.length, "the messages");
    assert.deepEqual(messages, texts);

    const signal = next(room_, "publication", ({ info }) => info?.user === bob.id);
    await room_.publish({ type: "typing" });
    assert.deepEqual((await signal).data, { type: "typing" });
    assert.equal((await room_.history({ limit: 5 })).publications.length, 5);
    assert.equal((await room_.presenceStats()).numClients, 1);
    assert.equal((await client.rpc("status.set", { status: "dnd" })).data.status, "dnd");
    await assert.rejects(client.rpc("unknown", {}), { code: 104 });

    // The network fails, and a message is missed.
    cable.cut();
    await next(client, "connecting");
    await write(alice, `${encoding} missed`);
    const again = next(room_, "subscribed");
    cable.mend();
    assert.deepEqual([(await again).recovered, (await again).wasRecovering], [true, true]);
    await until(() => messages.includes(`${encoding} missed`), "the missed message");
    assert.equal(messages.length, texts.length + 1);

    const gone = next(client, "disconnected");
    await fetch(`${http_(b)}/emulation`, { method: "POST", body: "{}" });
    await pocketbase.update("users", bob.id, { banned_until: "2099-01-01 00:00:00.000Z" });
    assert.equal((await gone).code, 4501);
    await pocketbase.update("users", bob.id, { banned_until: "" });
  });
}

/** A page of the site with a client; `messages` are the contents that have arrived. */
async function page(t, { gateway, emulation, transports }) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(site.origin);
  const took = await page.evaluate(
    ([gateway, emulationEndpoint, transports, token, channel]) => {
      const began = performance.now();
      const endpoint = (transport) =>
        transport === "websocket"
          ? `${gateway.replace("http", "ws")}/connection/websocket`
          : `${gateway}/connection/${transport}`;
      const list = transports.map((transport) => ({ transport, endpoint: endpoint(transport) }));
      window.client = new window.Centrifuge(list, { token, emulationEndpoint });
      window.messages = [];
      window.room = window.client.newSubscription(channel);
      window.room.on("publication", ({ data }) => {
        if (data.collection === "messages") window.messages.push(data.record.content);
      });
      const connected = new Promise((resolve) => window.client.on("connected", resolve));
      const subscribed = new Promise((resolve) => window.room.on("subscribed", resolve));
      window.room.subscribe();
      window.client.connect();
      return Promise.all([connected, subscribed]).then(([{ transport }]) => ({
        transport,
        milliseconds: performance.now() - began,
      }));
    },
    [gateway, emulation, transports, bob.token, `room:${room}`],
  );
  return { page, ...took };
}

async function chats({ page }, content) {
  await write(alice, content);
  await page.waitForFunction((content) => window.messages.includes(content), content, { timeout: 10_000 });
  const stats = await page.evaluate(async () => {
    await window.room.publish({ type: "typing" });
    return window.room.presenceStats();
  });
  assert.ok(stats.numClients >= 1);
}

const ALL = ["websocket", "http_stream", "sse"];

check("a page whose WebSocket is blocked falls back within 3 s and chats", async (t) => {
  const options = { gateway: site.origin, emulation: `${site.origin}/emulation`, transports: ALL };
  const fallen = await page(t, options);
  assert.equal(fallen.transport, "http_stream");
  assert.ok(fallen.milliseconds < 3000, `${fallen.milliseconds} ms`);
  t.diagnostic(`over http_stream after ${Math.round(fallen.milliseconds)} ms`);
  await chats(fallen, "over the stream");

  site.blocked.add("/connection/http_stream");
  const last = await page(t, options);
  site.blocked.clear();
  assert.equal(last.transport, "sse");
  t.diagnostic(`over sse after ${Math.round(last.milliseconds)} ms`);
  await chats(last, "over events");
});

check(
  "a page of an allowed origin uses streams of another origin, with commands sent to another gateway",
  async (t) => {
    for (const transport of ["http_stream", "sse"]) {
      const client = await page(t, {
        gateway: http_(a),
        emulation: `${http_(b)}/emulation`,
        transports: [transport],
      });
      assert.equal(client.transport, transport);
      await chats(client, `across origins over ${transport}`);
    }
  },
);
