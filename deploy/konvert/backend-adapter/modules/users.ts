// Profiles, roles, bans, muting, blocking.

import type { UsersModule } from "../interface.js";
import { NotFoundError } from "../errors.js";
import { caseVariants, quoted, type Context } from "./context.js";
import { text, type People } from "./people.js";

const PAGE = 50;
const MAX_PAGE = 500;

export function usersModule(context: Context, people: People): UsersModule {
  const { pocketbase } = context;
  const users = () => context.collection("users");

  async function updateSelf(values: object, options?: { signal?: AbortSignal }) {
    const id = context.me();
    const record = await context.write(options, { collection: "users", id }, (request) =>
      users().update(id, values, request),
    );
    return people.toUser(record, "online");
  }

  return {
    async searchUsers(query, options) {
      const words = caseVariants(query.trim());
      const match = words.flatMap((word) => [`username~${quoted(word)}`, `name~${quoted(word)}`]).join("||");
      const filter = query.trim() ? `deleted=false && (${match})` : "deleted=false";
      const limit = Math.min(options?.limit ?? PAGE, MAX_PAGE);
      const { items } = await context.call(options, (request) =>
        users().getList(1, limit, { ...request, filter, sort: "username", skipTotal: true }),
      );
      return {
        users: await people.withStatus(
          items.map((record) => people.toUser(record)),
          options,
        ),
      };
    },

    async getUserById(userId, options) {
      const record = await context.call(options, (request) => users().getOne(userId, request));
      const [user] = await people.withStatus([people.toUser(record)], options);
      if (!user) throw new NotFoundError("No such user.");
      return { user };
    },

    async updateUserProfile({ display_name, name, ...updates }, options) {
      const { username, status_text } = updates;
      const shown = display_name ?? name;
      const values = {
        ...(shown === undefined ? {} : { name: shown }),
        ...(username === undefined ? {} : { username: username.trim() }),
        ...(status_text === undefined ? {} : { status_text }),
      };
      return { user: await updateSelf(values, options) };
    },

    async updateUserRole(userId, role, options) {
      await context.route("PUT", `users/${userId}/role`, { role }, options);
      const record = await context.call(options, (request) => users().getOne(userId, request));
      return { user: people.toUser(record) };
    },

    async banUser(userId, hours, options) {
      await context.route("POST", `users/${userId}/ban`, { hours: hours ?? null }, options);
    },
    async unbanUser(userId, options) {
      await context.route("DELETE", `users/${userId}/ban`, undefined, options);
    },
    async muteUser(userId, hours, options) {
      await context.route("POST", `users/${userId}/mute`, { hours: hours ?? null }, options);
    },
    async unmuteUser(userId, options) {
      await context.route("DELETE", `users/${userId}/mute`, undefined, options);
    },

    async blockUser(userId, options) {
      await updateSelf({ "blocked+": userId }, options);
    },
    async unblockUser(userId, options) {
      await updateSelf({ "blocked-": userId }, options);
    },

    async uploadAvatar(file, options) {
      const id = context.me();
      const record = await context.write(options, { collection: "users", id }, (request) =>
        users().update(id, { avatar: file }, request),
      );
      people.toUser(record, "online");
      return { avatarUrl: pocketbase.files.getURL(record, text(record.avatar)) };
    },
  };
}
