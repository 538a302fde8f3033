// The move of a large chat, measured:
//
//   tests/run.sh --million [MESSAGES]
//
// By default 1,000,000 messages, 10,000 users and 2,000 files, with all oddities. Prints for each command the seconds,
// the processor seconds (user and system) of konvert-migrate and of PocketBase, and the greatest resident memory of
// konvert-migrate; then rows a second, PocketBase's greatest memory, the balance, what a second import changes, and how
// many users log in with their old password. On a machine with other work, the processor seconds are the measure. Ends
// with 1 if the verification finds a difference.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Lab, freePort } from "../node/harness.mjs";
import { accountEmailOf, passwordOf } from "./generate.mjs";
import { Migration, sqlite } from "./stage.mjs";
import { Supabase } from "./supabase.mjs";

const messages = Number(process.argv[2] ?? 1_000_000);
const CHAT = {
  users: Math.ceil(messages / 100),
  rooms: Math.ceil(messages / 500),
  directs: Math.ceil(messages / 250),
  messages,
  files: Math.ceil(messages / 500),
};
const lab = new Lab();
const line = (name, ...values) => console.log(name.padEnd(24), ...values);

/** Greatest resident memory of a process in MB, as far as /proc tells. */
const peak = (pid) =>
  Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024);

/** Processor seconds of a process, user and system, as far as /proc tells; Linux counts in hundredths. */
function processor(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function measured(migration, command, args = []) {
  const server = migration.pocketbase.process.pid;
  const [started, before] = [performance.now(), processor(server)];
  const child = migration.start(command, [...args, "--json"]);
  let [memory, own] = [0, 0];
  const watch = setInterval(() => {
    try {
      [memory, own] = [Math.max(memory, peak(child.pid)), processor(child.pid)];
    } catch {
      // the process has ended
    }
  }, 20);
  const ended = await child.ended;
  clearInterval(watch);
  if (ended.code !== 0 && ended.code !== 1) throw new Error(`${command}: ${ended.stderr}`);
  const summary = Object.assign(
    {},
    ...ended.stdout
      .trim()
      .split("\n")
      .map((text) => JSON.parse(text)),
  );
  const seconds = (performance.now() - started) / 1000;
  const spent = `processor: konvert-migrate ${own.toFixed(1)} s, PocketBase ${(processor(server) - before).toFixed(1)} s`;
  line(command, `${seconds.toFixed(1)} s`, `${memory} MB`, spent);
  return { seconds, summary, code: ended.code };
}

try {
  const supabase = await Supabase.start(lab, freePort, CHAT);
  const pocketbase = await lab.pocketbase("http://127.0.0.1:1");
  const migration = new Migration({
    folder: join(lab.folder, "export"),
    supabase,
    pocketbase,
    env: {
      SUPABASE_REST_URL: supabase.rest,
      SUPABASE_SERVICE_ROLE_KEY: (await import("./supabase.mjs")).jwt("service_role"),
    },
  });
  line("chat", JSON.stringify(CHAT), `${supabase.rowCount} rows`);
  const exported = await measured(migration, "export");
  line("", `${exported.summary.export.rows_per_second} rows/s in the first pass`);
  const imported = await measured(migration, "import");
  line("", `${imported.summary.import.messages_seconds.toFixed(1)} s for the messages and reactions`);
  const steps = Object.entries(imported.summary.import.step_seconds).filter(([, seconds]) => seconds >= 0.1);
  line("", steps.map(([label, seconds]) => `${label} ${seconds.toFixed(1)} s`).join(", "));
  line("", imported.summary.import.balance);
  line("PocketBase", `${peak(pocketbase.process.pid)} MB at most`);
  line("export and import", `${(exported.seconds + imported.seconds).toFixed(1)} s`);
  const again = await measured(migration, "import");
  const { total } = again.summary.import;
  line("", `second import: ${total.created} created, ${total.updated} updated, ${total.unchanged} unchanged`);
  const verified = await measured(migration, "verify");
  line("", `${verified.summary.verify.differences} differences`);
  supabase.sql(
    `UPDATE kv_store_b0f1e6d5 SET value = value || '{"content":"late"}' WHERE key IN (SELECT key FROM kv_store_b0f1e6d5 WHERE key LIKE 'message:%' AND value ? 'room_id' LIMIT 1000)`,
  );
  const delta = await measured(migration, "delta");
  line("", `${JSON.stringify(delta.summary.import.kinds.messages)}`);
  const hashes = new Map(sqlite(pocketbase, ["SELECT email, banned_until < '2026' FROM users"]));
  let [logins, failed] = [0, 0];
  for (let n = 0; n < CHAT.users; n++) {
    if (n % 67 === 11 || n % 71 === 12 || !accountEmailOf(n) || !hashes.get(accountEmailOf(n))) continue;
    await pocketbase.login(accountEmailOf(n), passwordOf(n)).then(
      () => logins++,
      () => failed++,
    );
  }
  line("logins", `${logins} with the old password, ${failed} refused`);
  process.exitCode = verified.code;
} finally {
  await lab.stop();
}
