// Login, users and moderation.

import {
  BackendError,
  ConflictError,
  InvalidError,
  NotFoundError,
  UnauthorizedError,
  UnsupportedError,
} from "../errors.js";
import type { AccountModule, AuthModule, CallOptions, User, UsersModule } from "../interface.js";
import { text } from "../modules/people.js";
import { segment, type Client } from "./client.js";
import { row, rows, toUser, type Row } from "./records.js";

const FRESH_MS = 60_000;
/** Most users in the cache. */
const KEPT = 5000;
/** Most requests at once: the backend has a route for one user only. */
const PARALLEL = 6;

/** Reads users, with a short-lived cache. */
export class People {
  private readonly known = new Map<string, { user: Promise<User | null>; until: number }>();

  constructor(private readonly client: Client) {}

  async one(userId: string, options?: CallOptions): Promise<{ user: User; raw: Row }> {
    const answer = await this.client.get<Row>(`/users/${segment(userId)}`, options);
    const raw = row(answer.user);
    if (text(raw.id) !== userId) throw new NotFoundError("No such user.");
    return { user: toUser(raw, userId === this.client.userId), raw };
  }

  /** Users by id, without deleted accounts. */
  async many(userIds: Iterable<string>): Promise<Map<string, User>> {
    const wanted = [...new Set(userIds)].filter(Boolean);
    const found = new Map<string, User>();
    const queue = [...wanted];
    const work = async () => {
      for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
        const user = await this.cached(id);
        if (user) found.set(id, user);
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL, wanted.length) }, work));
    return found;
  }

  private cached(id: string): Promise<User | null> {
    const entry = this.known.get(id);
    if (entry && entry.until > Date.now()) return entry.user;
    const user = this.one(id).then(
      (result) => result.user,
      (error: unknown) => {
        if (error instanceof NotFoundError) return null;
        this.known.delete(id);
        throw error;
      },
    );
    this.known.delete(id);
    this.known.set(id, { user, until: Date.now() + FRESH_MS });
    if (this.known.size > KEPT) for (const old of [...this.known.keys()].slice(0, KEPT / 10)) this.known.delete(old);
    return user;
  }

  clear(): void {
    this.known.clear();
  }
}

interface Login {
  user: Row;
  access_token: string;
  refresh_token?: string;
}

export function authModule(client: Client, outbox: { clear(): void }): AuthModule {
  async function signin(email: string, password: string, options?: CallOptions): Promise<Login> {
    try {
      return await client.open<Login>("POST", "/auth/signin", { email, password }, options);
    } catch (error) {
      if (!(error instanceof BackendError) || (error.status !== 400 && error.status !== 403)) throw error;
      if (error.temporary) throw error;
      const action = error.status === 400 ? "Check the address and the password." : "Ask an administrator.";
      throw new UnauthorizedError(error.message, { status: error.status, action, cause: error });
    }
  }

  function keep(login: Login): { user: User; access_token: string } {
    client.keep(login);
    return { user: toUser(row(login.user), true), access_token: login.access_token };
  }

  return {
    async signup(email, password, username, options) {
      const address = email.trim().toLowerCase();
      const login = await client.open<Login>(
        "POST",
        "/auth/signup",
        { email: address, password, username: username.trim() },
        options,
      );
      if (login.refresh_token) return keep(login);
      // The answer to a sign-up lacks the token that renews the login.
      return keep({ ...(await signin(address, password, options)), user: login.user });
    },

    async signin(email, password, options) {
      return keep(await signin(email.trim().toLowerCase(), password, options));
    },

    async signout() {
      outbox.clear();
      if (client.userId) {
        // The login ends on this device, also while the backend cannot be reached.
        await client.post("/auth/signout").catch(() => {});
        await client.auth("POST", "/logout?scope=local").catch(() => {});
      }
      client.forget();
    },

    async getMe(options) {
      const answer = await client.get<Row>("/auth/me", options);
      return { user: toUser(row(answer.user), true) };
    },

    async refreshToken(refreshToken) {
      if (!refreshToken) client.me();
      await client.renew(refreshToken);
      return { access_token: client.token };
    },

    currentUserId: () => client.userId,
    onAuthChange: (callback) => client.onAuthChange(callback),
  };
}

export function usersModule(client: Client, people: People): UsersModule {
  const path = (userId: string, rest: string) => `/users/${segment(userId)}/${rest}`;

  /** Success also if the backend refuses because the state exists already. */
  async function unlessSo(
    work: Promise<unknown>,
    kind: typeof ConflictError | typeof NotFoundError,
    text: RegExp,
  ): Promise<void> {
    await work.catch((error: unknown) => {
      if (!(error instanceof kind) || !text.test(error.message)) throw error;
    });
  }

  function checkHours(hours: number | undefined): void {
    if (hours !== undefined && !(hours > 0)) throw new InvalidError("hours: a positive number is needed.");
  }

  return {
    async searchUsers(query, options) {
      const answer = await client.get<Row>(`/users/search?q=${encodeURIComponent(query.trim())}`, options);
      const me = client.userId;
      const users = rows(answer.users).filter(({ id }) => text(id) !== "");
      return { users: users.slice(0, options?.limit ?? 50).map((raw) => toUser(raw, raw.id === me)) };
    },

    async getUserById(userId, options) {
      const { user } = await people.one(userId, options);
      return { user };
    },

    async updateUserProfile({ display_name, name, username, status_text }, options) {
      const shown = display_name ?? name;
      if (username !== undefined)
        throw new UnsupportedError("updateUserProfile", "the old backend cannot change a username.");
      if (status_text !== undefined)
        throw new UnsupportedError("updateUserProfile", "the old backend stores no status text.");
      const answer = await client.put<Row>("/profile", shown === undefined ? {} : { display_name: shown }, options);
      people.clear();
      return { user: toUser(row(answer.user), true) };
    },

    async updateUserRole(userId, role, options) {
      const raw = await client.put<Row>(path(userId, "role"), { role }, options);
      people.clear();
      return { user: toUser(raw, userId === client.userId) };
    },

    async banUser(userId, hours, options) {
      checkHours(hours);
      await client.post(path(userId, "ban"), hours === undefined ? {} : { hours }, options);
      people.clear();
    },
    async unbanUser(userId, options) {
      await client.post(path(userId, "unban"), {}, options);
      people.clear();
    },
    async muteUser(userId, hours = 24, options) {
      checkHours(hours);
      await client.post(path(userId, "mute"), { hours }, options);
      people.clear();
    },
    async unmuteUser(userId, options) {
      await client.post(path(userId, "unmute"), {}, options);
      people.clear();
    },
    blockUser: (userId, options) =>
      unlessSo(client.post(path(userId, "block"), {}, options), ConflictError, /заблокирован/),
    unblockUser: (userId, options) =>
      unlessSo(client.post(path(userId, "unblock"), {}, options), NotFoundError, /не в списке/),

    async uploadAvatar(file, options) {
      const form = new FormData();
      form.append("file", file, file.name);
      const answer = await client.post<Row>("/profile/avatar", form, options);
      people.clear();
      const avatarUrl = text(answer.avatarUrl);
      if (!avatarUrl) throw new InvalidError("The backend stored no picture.");
      return { avatarUrl };
    },
  };
}

/** Not part of this adapter: the old chat's own settings do this until the data move. */
export function accountModule(client: Client): AccountModule {
  const elsewhere = (method: string) => async (): Promise<never> => {
    client.me();
    const action = "Use the settings of the old chat.";
    throw new UnsupportedError(method, "the adapter for the old backend does not change accounts.", { action });
  };
  return {
    changePassword: elsewhere("changePassword"),
    changeEmail: elsewhere("changeEmail"),
    confirmEmailChange: elsewhere("confirmEmailChange"),
    deleteUser: elsewhere("deleteUser"),
  };
}
