// The chat's calls of Supabase's auth service and storage service, with the documented shapes. Package registries do not
// contain the services.

import { randomBytes } from "node:crypto";

const HOUR = 3600;

export class Auth {
  #refreshTokens = new Map();

  constructor(database) {
    this.database = database;
  }

  async create(email, password, meta) {
    if (String(password).length < 6)
      throw new Reply(422, {
        code: 422,
        error_code: "weak_password",
        msg: "Password should be at least 6 characters.",
      });
    try {
      return user(await this.database.request("POST", "/rpc/auth_create", { email, password, meta }));
    } catch (error) {
      if (!/duplicate key/.test(error.message)) throw error;
      throw new Reply(422, {
        code: 422,
        error_code: "email_exists",
        msg: "A user with this email address has already been registered",
      });
    }
  }

  async list() {
    return (await this.database.request("POST", "/rpc/auth_list", {})).map(user);
  }

  async password(email, password) {
    const [found] = await this.database.request("POST", "/rpc/auth_check", { email, password });
    if (!found)
      throw new Reply(400, { code: 400, error_code: "invalid_credentials", msg: "Invalid login credentials" });
    return this.#session(user(found));
  }

  async refresh(token) {
    const found = this.#refreshTokens.get(token);
    this.#refreshTokens.delete(token);
    if (!found)
      throw new Reply(400, {
        code: 400,
        error_code: "refresh_token_not_found",
        msg: "Invalid Refresh Token: Refresh Token Not Found",
      });
    return this.#session(found);
  }

  async userOf(token) {
    const claims = this.database.verify(token);
    const found = claims?.sub && (await this.list()).find(({ id }) => id === claims.sub);
    if (!found) throw new Reply(403, { code: 403, error_code: "bad_jwt", msg: "invalid JWT" });
    return found;
  }

  #session(found) {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      sub: found.id,
      role: "authenticated",
      aud: "authenticated",
      email: found.email,
      iat: now,
      exp: now + HOUR,
    };
    const refresh_token = randomBytes(9).toString("base64url");
    this.#refreshTokens.set(refresh_token, found);
    const access_token = this.database.sign({ ...claims, jti: refresh_token });
    return { access_token, token_type: "bearer", expires_in: HOUR, expires_at: claims.exp, refresh_token, user: found };
  }

  async answer(method, path, query, body, token) {
    if (path === "/token" && query.get("grant_type") === "password") return this.password(body.email, body.password);
    if (path === "/token" && query.get("grant_type") === "refresh_token") return this.refresh(body.refresh_token);
    if (path === "/user") return this.userOf(token);
    if (path === "/logout") return {};
    if (path === "/signup")
      return this.create(body.email, body.password, body.data ?? {}).then(() =>
        this.password(body.email, body.password),
      );
    if (path === "/admin/users" && this.database.verify(token)?.role === "service_role") {
      if (method === "POST") return this.create(body.email, body.password, body.user_metadata ?? {});
      return { users: await this.list(), aud: "authenticated" };
    }
    throw new Reply(404, { code: 404, msg: "no such call here" });
  }
}

function user({ id, email, created_at, raw_user_meta_data }) {
  return {
    id,
    aud: "authenticated",
    role: "authenticated",
    email,
    created_at,
    app_metadata: {},
    user_metadata: raw_user_meta_data,
  };
}

/** An answer that is no success. */
export class Reply extends Error {
  constructor(status, body) {
    super(body.error ?? body.msg ?? String(status));
    Object.assign(this, { status, body });
  }
}

const TYPES = /^(image|video|audio)\//;

export class Files {
  #files = new Map();
  #tokens = new Map();

  store(path, content, type) {
    if (!TYPES.test(type))
      throw new Reply(400, {
        statusCode: "415",
        error: "invalid_mime_type",
        message: `mime type ${type} is not supported`,
      });
    this.#files.set(path, { content, type });
  }
  sign(path) {
    const token = randomBytes(12).toString("base64url");
    this.#tokens.set(token, path);
    return `/object/sign/${path}?token=${token}`;
  }
  read(path, token) {
    const file = this.#tokens.get(token) === path ? this.#files.get(path) : undefined;
    if (!file) throw new Reply(400, { statusCode: "404", error: "not_found", message: "Object not found" });
    return file;
  }
  remove(path) {
    this.#files.delete(path);
  }
}
