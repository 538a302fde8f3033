// Log in, sign up, log out, renew.

import type { RecordModel } from "pocketbase";
import type { AuthModule, User } from "../interface.js";
import { BackendError, ForbiddenError, UnauthorizedError } from "../errors.js";
import { quoted, type Context } from "./context.js";
import { list, text, type People } from "./people.js";

export function authModule(context: Context, people: People, outbox: { clear(): void }): AuthModule {
  const { pocketbase } = context;

  /** Records of the caller that complete the caller's user: accepted friend requests, and room keys. */
  function additions(): Promise<[RecordModel[], RecordModel[]]> {
    return Promise.all([
      context.call(undefined, (request) =>
        context
          .collection("friend_requests")
          .getFullList({ ...request, filter: `status="accepted"`, fields: "from,to" }),
      ),
      context.call(undefined, (request) =>
        context.collection("room_keys").getFullList({ ...request, sort: "key_version" }),
      ),
    ]);
  }

  /** The caller's own record, with friends, blocked users and newest room keys. */
  function self(record: RecordModel, [friends, keys]: [RecordModel[], RecordModel[]]): User {
    return {
      ...people.toUser(record, "online"),
      friends: friends.map(({ from, to }) => (from === record.id ? text(to) : text(from))),
      blocked_users: list(record.blocked),
      room_keys: Object.fromEntries(keys.map(({ room, encrypted_key }) => [text(room), text(encrypted_key)])),
    };
  }

  async function login(email: string, password: string, signal?: AbortSignal) {
    try {
      const { record, token } = await context.open(signal ? { signal } : {}, (request) =>
        // GoTrue and people ignore the case of addresses; PocketBase does not.
        context.collection("users").authWithPassword(email.trim().toLowerCase(), password, request),
      );
      return { user: self(record, await additions()), access_token: token };
    } catch (error) {
      if (!(error instanceof BackendError)) throw error;
      if (error instanceof ForbiddenError) throw context.loginOver(error);
      if (error.status === 400) {
        const action = "Check the address and the password.";
        throw new UnauthorizedError("The address or the password is wrong.", { status: 400, action, cause: error });
      }
      throw error;
    }
  }

  return {
    async signup(email, password, username, options) {
      const data = {
        email: email.trim().toLowerCase(),
        password,
        passwordConfirm: password,
        username: username.trim(),
        name: username.trim(),
      };
      await context.open(options, (request) => context.collection("users").create(data, request));
      return login(email, password, options?.signal);
    },

    signin: (email, password, options) => login(email, password, options?.signal),

    async signout() {
      outbox.clear();
      context.forget();
    },

    async getMe(options) {
      context.me();
      // At once: a login that is over fails the renewal, whose error says so.
      const [renewed, added] = await Promise.allSettled([context.renew(options), additions()]);
      if (renewed.status === "rejected") throw renewed.reason;
      const record = pocketbase.authStore.record;
      if (!record) throw new UnauthorizedError("Nobody is logged in.");
      if (added.status === "rejected") throw added.reason;
      return { user: self(record, added.value) };
    },

    async refreshToken(_refreshToken, options) {
      context.me();
      await context.renew(options);
      return { access_token: pocketbase.authStore.token };
    },

    currentUserId: () => context.userId,

    onAuthChange(callback) {
      let last = context.userId;
      return pocketbase.authStore.onChange(() => {
        if (context.userId === last) return;
        last = context.userId;
        callback(last ? { id: last } : null);
      });
    },
  };
}

/** The filter for one record of a pair. */
export function pair(one: string, first: string, other: string, second: string): string {
  return `${one}=${quoted(first)} && ${other}=${quoted(second)}`;
}
