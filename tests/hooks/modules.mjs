// Loads modules of the hooks without PocketBase, with the two globals of PocketBase's engine that the modules use.

import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const HOOKS = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../deploy/pocketbase/pb_hooks");
const require = createRequire(import.meta.url);

globalThis.__hooks = HOOKS;
globalThis.toBytes = (text) => Buffer.from(text);

export const load = (name) => require(path.join(HOOKS, "gateway", `${name}.js`));
