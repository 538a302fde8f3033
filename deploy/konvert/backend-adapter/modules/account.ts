// The account: password, address, deletion.

import { InvalidError, UnsupportedError } from "../errors.js";
import type { AccountModule } from "../interface.js";
import type { Context } from "./context.js";
import { text } from "./people.js";

export function accountModule(context: Context, outbox: { clear(): void }): AccountModule {
  const users = () => context.collection("users");

  return {
    async changePassword(oldPassword, newPassword, options) {
      const id = context.me();
      const email = text(context.pocketbase.authStore.record?.email);
      const values = { oldPassword, password: newPassword, passwordConfirm: newPassword };
      await context.write(options, { collection: "users", id }, (request) => users().update(id, values, request));
      // PocketBase ends all logins at a new password, so this device logs in again.
      await context.open(options, (request) => users().authWithPassword(email, newPassword, request));
    },

    async changeEmail(newEmail, options) {
      try {
        await context.call(options, (request) => users().requestEmailChange(newEmail.trim().toLowerCase(), request));
      } catch (error) {
        // Without a fault of the address, PocketBase could not send the mail.
        if (!(error instanceof InvalidError) || Object.keys(error.fields).length > 0) throw error;
        const action = "Ask the operator to set up mail in PocketBase's settings.";
        throw new UnsupportedError("changeEmail", "the server could not send the mail.", { action, cause: error });
      }
    },

    async confirmEmailChange(token, password, options) {
      await context.open(options, (request) => users().confirmEmailChange(token, password, request));
      context.forget(); // PocketBase ends all logins at a new address
    },

    async deleteUser(userId, options) {
      const isSelf = context.me() === userId;
      await context.write(options, { collection: "users", id: userId }, (request) => users().delete(userId, request));
      if (!isSelf) return;
      outbox.clear();
      context.forget();
    },
  };
}
