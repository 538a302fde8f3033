// The stage of the tests: an old project, PocketBase, and konvert-migrate between them.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join, resolve } from "node:path";
import { readFileSync } from "node:fs";
import { root } from "../node/harness.mjs";
import { SECRET_KEY } from "./supabase.mjs";

const target = resolve(process.env.CARGO_TARGET_DIR ?? join(root, "target"));
export const binary = process.env.KONVERT_MIGRATE ?? join(target, "release/konvert-migrate");

/** PocketBase's address for browsers. */
export const PUBLIC = "https://chat.example.org";

/** Runs of konvert-migrate between an old project and a PocketBase. */
export class Migration {
  constructor({ folder, supabase, pocketbase, env = {} }) {
    Object.assign(this, { folder, supabase, pocketbase });
    this.env = {
      ...process.env,
      SUPABASE_URL: supabase?.url ?? "",
      SUPABASE_SERVICE_ROLE_KEY: SECRET_KEY,
      SUPABASE_DB_URL: supabase?.dbUrl ?? "",
      POCKETBASE_PUBLIC_URL: PUBLIC,
      POCKETBASE_URL: pocketbase?.url ?? "",
      POCKETBASE_ADMIN_EMAIL: "root@example.com",
      POCKETBASE_ADMIN_PASSWORD: "root-password",
      ...env,
    };
  }

  start(command, args = [], env = {}) {
    const child = spawn(binary, [command, "--dir", this.folder, ...args], {
      env: { ...this.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.text = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"]) child[name].on("data", (data) => (child.text[name] += data));
    child.ended = once(child, "close").then(([code, signal]) => ({ code, signal, ...child.text }));
    return child;
  }

  /** Runs to the end: {code, stdout, stderr, summary}. */
  async run(command, args = [], env = {}) {
    const ended = await this.start(command, [...args, "--json"], env).ended;
    const lines = ended.stdout
      .trim()
      .split("\n")
      .filter((line) => line.startsWith("{"));
    return { ...ended, summary: Object.assign({}, ...lines.map((line) => JSON.parse(line))) };
  }

  /** As `run`; a run that was not finished is an error. */
  async finish(command, args = [], env = {}) {
    const ended = await this.run(command, args, env);
    if (ended.code !== 0 && ended.code !== 1)
      throw new Error(`${command} ended with ${ended.code}: ${ended.stderr}${ended.stdout}`);
    return ended;
  }

  lines(name) {
    return readFileSync(join(this.folder, name), "utf8")
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }
}

/** Runs statements on PocketBase's database file, beside the running server; returns the rows of the last one. */
export function sqlite(pocketbase, statements) {
  const script = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
rows = []
for statement in json.load(sys.stdin):
    rows = db.execute(statement).fetchall()
db.commit()
print(json.dumps(rows))`;
  const ended = spawnSync("python3", ["-c", script, join(pocketbase.folder, "pb_data/data.db")], {
    input: JSON.stringify(statements),
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (ended.status !== 0) throw new Error(ended.stderr);
  return JSON.parse(ended.stdout);
}

export const TABLES = [
  "users",
  "rooms",
  "room_members",
  "messages",
  "reactions",
  "pins",
  "polls",
  "poll_votes",
  "friend_requests",
  "notifications",
  "achievements",
  "room_keys",
  "files",
];

/** A hash of each table's rows. Tokens and the random passwords of users without a hash differ in every run. */
export function tables(pocketbase) {
  const script = `
import hashlib, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
out = {}
for table in sys.argv[2].split(","):
    columns = sorted(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
    columns = [c for c in columns if c != "tokenKey" and not (table == "users" and c == "password")]
    digest, count = hashlib.sha256(), 0
    names = ",".join(f"[{c}]" for c in columns)
    for row in db.execute(f"SELECT {names} FROM {table} ORDER BY id"):
        digest.update(repr(row).encode()); count += 1
    out[table] = [count, digest.hexdigest()]
print(json.dumps(out))`;
  const ended = spawnSync("python3", ["-c", script, join(pocketbase.folder, "pb_data/data.db"), TABLES.join(",")], {
    encoding: "utf8",
  });
  if (ended.status !== 0) throw new Error(ended.stderr);
  return JSON.parse(ended.stdout);
}
