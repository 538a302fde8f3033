// The migration "upkeep" on a database of before: existing polls, notifications and favourites get the new form.

import assert from "node:assert/strict";
import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CHAT, PocketBase, install, run } from "../pocketbase/harness.mjs";

const FILE = "pb_migrations/1796256060_konvert_upkeep.js";

test("records of before the migration get the new form, and the old one again at the way back", async () => {
  const folder = install((place) => rmSync(join(place, FILE)), CHAT);
  let pb = await PocketBase.start({ folder });
  try {
    const [anna, boris] = [await pb.user("anna"), await pb.user("boris")];
    const room = await pb.create("rooms", { name: "Favorites", type: "private", owner: anna.id, favorites: true });
    const poll = await pb.create("polls", {
      ...{ room: room.id, author: anna.id, question: "When?", options: ["Monday", "Friday"], counts: [0, 0] },
      anonymous: true,
    });
    const message = await pb.create("messages", { room: room.id, author: anna.id, type: "poll", content: poll.id });
    await pb.update("polls", poll.id, { message: message.id });
    const request = await pb.create("friend_requests", { from: anna.id, to: boris.id, status: "pending" });
    const note = await pb.create("notifications", { user: boris.id, from: anna.id, type: "friend_request" });
    await pb.stop({ keep: true });

    copyFileSync(join(CHAT, FILE), join(folder, FILE));
    pb = await PocketBase.start({ folder });
    const read = async (collection, { id }) => (await pb.list(collection)).items.find((record) => record.id === id);
    assert.equal((await read("messages", message)).content, "📊 When? 🔒\n\n1. Monday\n2. Friday");
    assert.equal((await read("notifications", note)).request, request.id);
    assert.equal((await read("rooms", room)).name, "");
    await pb.remove("friend_requests", request.id);
    assert.equal(await read("notifications", note), undefined, "goes with its request");
    await pb.stop({ keep: true });
    const { status, output } = run(folder, ["migrate", "down", "1"]);
    assert.equal(status, 0, output);
    assert.match(output, /Reverted 1796256060_konvert_upkeep/);
  } finally {
    await pb.stop();
  }
});
