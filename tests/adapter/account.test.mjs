// Requests to PocketBase's own API without the adapter, and the account: a new address by mail, deletion.

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { refused } from "./contract.mjs";
import { PASSWORD, Stage, collector, until } from "./stage.mjs";

let stage;
before(async () => {
  stage = await Stage.start();
});
after(() => stage?.stop());

/** A mail server that keeps what it receives. */
async function mailbox(t) {
  const mails = [];
  const server = createServer((socket) => {
    let [data, isBody] = ["", false];
    const say = (line) => socket.write(`${line}\r\n`);
    say("220 mailbox");
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      data += chunk;
      for (;;) {
        const end = isBody ? data.indexOf("\r\n.\r\n") : data.indexOf("\r\n");
        if (end < 0) return;
        const part = data.slice(0, end);
        data = data.slice(end + (isBody ? 5 : 2));
        if (isBody) {
          mails.push(part.replaceAll("=\r\n", "").replaceAll("=3D", "="));
          isBody = false;
          say("250 kept");
        } else if (part === "DATA") {
          isBody = true;
          say("354 go on");
        } else if (part === "QUIT") socket.end("221 bye\r\n");
        else say("250 yes");
      }
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  return { mails, port: server.address().port };
}

const settings = (body) => stage.pocketbase.call("PATCH", "/api/settings", body, stage.pocketbase.root);

test("a new address: by a mail with a token, confirmed with the password", async (t) => {
  const { mails, port } = await mailbox(t);
  const smtp = { enabled: true, host: "127.0.0.1", port, tls: false, username: "", password: "" };
  assert.equal((await settings({ smtp })).status, 200);
  t.after(() => settings({ smtp: { ...smtp, enabled: false } }));
  const user = await stage.user("mover");
  const address = `${user.username}@new.example`;
  await user.adapter.changeEmail(address.toUpperCase());
  await until(() => mails.length > 0, "the mail", 20_000);
  assert.match(mails[0], new RegExp(`^To: .*${address}`, "m"));
  const [token] = /eyJ[\w-]+\.[\w-]+\.[\w-]+/.exec(mails[0]);
  await assert.rejects(user.adapter.confirmEmailChange(token, "wrong-password"), refused("invalid"));
  await assert.rejects(user.adapter.confirmEmailChange("no.such.token", PASSWORD), refused("invalid"));
  await user.adapter.confirmEmailChange(token, PASSWORD);
  assert.equal(user.adapter.currentUserId(), null, "all logins end");
  assert.equal((await user.adapter.signin(address, PASSWORD)).user.email, address);
});

test("changeEmail refuses an address in use, and says when the server sends no mail", async () => {
  const [one, two] = [await stage.user("one"), await stage.user("two")];
  await assert.rejects(one.adapter.changeEmail(two.email), refused("invalid", "conflict"));
  await assert.rejects(one.adapter.changeEmail("no address"), refused("invalid"));
  const smtp = { enabled: true, host: "127.0.0.1", port: 1, tls: false };
  assert.equal((await settings({ smtp })).status, 200);
  await assert.rejects(one.adapter.changeEmail("free@example.com"), refused("unsupported"));
  await settings({ smtp: { ...smtp, enabled: false } });
});

test("PocketBase's own API deletes no direct room, also not for the user who made it", async () => {
  const [one, two] = [await stage.user("one"), await stage.user("two")];
  const { dm } = await one.adapter.createDirectMessage(two.id);
  const { token } = one.adapter.pocketbase.authStore;
  const { status } = await stage.pocketbase.call("DELETE", `/api/collections/rooms/records/${dm.id}`, undefined, {
    token,
  });
  assert.equal(status, 404);
  assert.ok((await two.adapter.getDirectMessages()).dms.some(({ id }) => id === dm.id));
});

test("after the deletion of an account, its empty private rooms go, favourites too, and direct rooms stay", async () => {
  const [one, two] = [await stage.user("one"), await stage.user("two")];
  const { room: alone } = await one.adapter.createRoom("Alone", "private");
  const { room: notes } = await one.adapter.getOrCreateFavorites();
  const { room: open } = await one.adapter.createRoom("Open", "public");
  const { dm } = await two.adapter.createDirectMessage(one.id);
  await two.adapter.sendDMMessage(dm.id, "keep this", "text");
  await one.adapter.deleteUser(one.id);
  const rooms = (await stage.pocketbase.list("rooms")).items.map(({ id }) => id);
  assert.deepEqual(
    [alone, notes, open, dm].map(({ id }) => rooms.includes(id)),
    [false, false, true, true],
  );
  assert.equal((await two.adapter.getMessages(dm.id, 10)).messages[0].content, "keep this");
});

test("favourites have a name in the language of the client, unless they were renamed", async () => {
  const user = await stage.user("collector");
  const { room } = await user.adapter.getOrCreateFavorites();
  const russian = stage.adapter({ language: "ru" });
  await russian.signin(user.email, PASSWORD);
  assert.deepEqual([room.name, (await russian.getOrCreateFavorites()).room.name], ["Favourites", "Избранное"]);
  await user.adapter.renameRoom(room.id, "Notes");
  assert.equal((await russian.getRoom(room.id)).room.name, "Notes");
});

test("each call of getMe returns a new object, equal while nothing has changed", async () => {
  const { adapter } = await stage.user("same");
  const [{ user: first }, { user: second }] = [await adapter.getMe(), await adapter.getMe()];
  assert.notEqual(first, second);
  assert.deepEqual(first, second);
});

test("the path of the old frontend's sign of life answers on PocketBase", async () => {
  const { status, body } = await stage.pocketbase.call("GET", "/functions/v1/make-server-b0f1e6d5/health");
  assert.deepEqual([status, body], [200, { status: "ok" }]);
});

test("a mention's notification carries the message as far as it is plain text", async () => {
  const [one, two] = [await stage.user("one"), await stage.user("two")];
  const { room } = await one.adapter.createRoom("Hall", "private", [two.id]);
  await one.adapter.sendMessage(room.id, `look, @${two.username}`);
  const secret = JSON.stringify({ version: "v1", ciphertext: "AAAA", iv: "AAAA" });
  await one.adapter.sendMessage(room.id, secret, "text", undefined, { mentions: [two.id] });
  const { notifications } = await two.adapter.getNotifications();
  assert.deepEqual(
    notifications.filter(({ type }) => type === "mention").map(({ content }) => content),
    [undefined, `look, @${two.username}`],
  );
});

test("a new public key is told to the members of private rooms, who share the room's keys then", async () => {
  const [owner, member] = [await stage.user("owner"), await stage.user("member")];
  const { room } = await owner.adapter.createRoom("Keys", "private", [member.id]);
  const [ready, members] = [collector(), collector()];
  owner.adapter.subscribeToRoom(room.id, () => {}, { onReady: () => ready(true), onMember: members });
  await ready.until(Boolean, "the subscription");
  const update = ({ userId, action }) => userId === member.id && action === "update";
  assert.equal(members.seen.find(update), undefined);
  await member.adapter.updatePublicKey("MIIBIjANBg==");
  await members.until(update, "the member's event");
});
