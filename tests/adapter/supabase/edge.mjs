// The routes of the chat's edge function, over the key-value table. The real function is not ours to ship; this server
// offers the documented routes, with the same answers, reasons (read by the adapter) and gaps: no client-chosen ids,
// read-modify-write of indexes, contradicting field names, missing checks.

import { randomUUID } from "node:crypto";
import { messageRoutes } from "./edge-messages.mjs";
import { peopleRoutes } from "./edge-people.mjs";
import { roomRoutes } from "./edge-rooms.mjs";
import { Reply } from "./gotrue.mjs";

export const now = () => new Date().toISOString();
export const newId = () => randomUUID();

/** Ends a call with an error; the function answers most of them with 400. */
export function refuse(error, status = 400, more = {}) {
  throw new Reply(status, { error, ...more });
}

export class Edge {
  #routes = [];

  constructor(services) {
    this.services = services;
    const add = (method, pattern, handler, { open = false } = {}) => {
      const names = [];
      const source = pattern.replace(/:(\w+)/g, (_, name) => {
        names.push(name);
        return "([^/]+)";
      });
      this.#routes.push({ method, names, handler, open, pattern: new RegExp(`^${source}$`) });
    };
    for (const routes of [peopleRoutes, roomRoutes, messageRoutes]) routes(add, services);
  }

  /** Answer to a call: { status, body }. Without a body, the answer is plain text, as for unknown routes. */
  async answer({ method, path, query, body, token }) {
    for (const { method: wanted, names, handler, open, pattern } of this.#routes) {
      const found = wanted === method && pattern.exec(path);
      if (!found) continue;
      const params = Object.fromEntries(names.map((name, index) => [name, decodeURIComponent(found[index + 1])]));
      try {
        const me = open ? null : await this.#caller(token);
        return { status: 200, body: await handler({ me, params, query, body: body ?? {}, token }) };
      } catch (error) {
        if (error instanceof Reply) return { status: error.status, body: error.body };
        return { status: 500, body: { error: `Ошибка: ${error.message}` } };
      }
    }
    return { status: 404, body: undefined };
  }

  async #caller(token) {
    const { database } = this.services;
    const { sub } = database.verify(token) ?? {};
    const user = sub ? await database.get(`user:${sub}`) : null;
    if (!user || user.deleted) refuse("Недействительный токен", 401);
    return user;
  }
}
