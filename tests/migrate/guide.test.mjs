// Every command of the two guides, run in their order in a folder of its own.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PocketBase } from "../pocketbase/harness.mjs";
import { Lab, freePort, gatewayBinary, root } from "../node/harness.mjs";
import { binary } from "./stage.mjs";
import { SECRET_KEY, Supabase } from "./supabase.mjs";

const lab = new Lab();
let supabase;

before(
  lab.explained(
    async () =>
      (supabase = await Supabase.start(lab, freePort, { users: 40, rooms: 8, directs: 6, messages: 300, files: 5 })),
  ),
);
after(() => lab.stop());

const blocks = (text) => [...text.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block]) => block);

/** A folder with the guide's programs on the PATH, and with its npm scripts. */
function stage() {
  const folder = mkdtempSync(join(lab.folder, "guide-"));
  cpSync(join(root, "deploy/konvert/migration"), folder, { recursive: true });
  mkdirSync(join(folder, "bin"));
  const programs = { "konvert-migrate": binary, "konvert-gateway": gatewayBinary, pocketbase: process.env.POCKETBASE };
  for (const [name, path] of Object.entries(programs)) symlinkSync(path, join(folder, "bin", name));
  return folder;
}

for (const name of ["MIGRATION_GUIDE.md", "MIGRATION_GUIDE.ru.md"]) {
  test(`the commands of ${name}`, async () => {
    const text = readFileSync(join(root, "deploy/konvert", name), "utf8");
    const [server, ...steps] = blocks(text);
    assert.ok(steps.length >= 4);
    const folder = stage();
    const env = {
      ...process.env,
      PATH: `${join(folder, "bin")}:${process.env.PATH}`,
      POCKETBASE_ADMIN_EMAIL: "root@example.com",
      POCKETBASE_ADMIN_PASSWORD: "root-password",
      SOMEBODY: "user1@example.com",
      GATEWAY_SECRET: "a secret of the tests, long enough to pass",
    };
    // Not spawnSync: this process answers for the old project.
    const run = (script) =>
      new Promise((done) => {
        const options = { cwd: folder, env, encoding: "utf8", timeout: 300_000 };
        execFile("bash", ["-c", script], options, (error, stdout, stderr) =>
          done({ status: error ? error.code : 0, stdout, stderr }),
        );
      });
    const prepared = await run(`set -e\n${server}`);
    assert.equal(prepared.status, 0, prepared.stdout + prepared.stderr);
    // The folder of the guide, served.
    const pocketbase = await PocketBase.start({ folder: join(folder, "chat") });
    lab.defer(() => pocketbase.stop());
    const variables = {
      SUPABASE_URL: supabase.url,
      SUPABASE_SERVICE_ROLE_KEY: SECRET_KEY,
      SUPABASE_DB_URL: supabase.dbUrl,
      POCKETBASE_URL: pocketbase.url,
      POCKETBASE_PUBLIC_URL: "https://chat.example.org",
      POCKETBASE_ADMIN_EMAIL: "root@example.com",
      POCKETBASE_ADMIN_PASSWORD: "root-password",
    };
    const example = readFileSync(join(folder, ".env.example"), "utf8");
    for (const variable of Object.keys(variables))
      assert.match(example, new RegExp(`^${variable}=`, "m"), `${variable} is in .env.example`);
    writeFileSync(
      join(folder, ".env"),
      Object.entries(variables)
        .map(([key, value]) => `${key}='${value}'\n`)
        .join(""),
    );
    for (const block of steps) {
      for (const command of block.trim().split("\n")) {
        const { status, stdout, stderr } = await run(command);
        // 1: this chat has rows that are rejected.
        const allowed = command.includes("migrate:import") || command.includes("migrate:delta") ? [0, 1] : [0];
        assert.ok(allowed.includes(status), `${command}: ${status}\n${stdout}${stderr}`);
        if (command.startsWith("jq '.users")) assert.equal(stdout.trim(), "40");
      }
    }
    assert.ok(existsSync(join(folder, "migration/verify.json")));
    assert.equal(JSON.parse(readFileSync(join(folder, "migration/verify.json"))).differences, 0);
  });
}
