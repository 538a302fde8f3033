export * from "./interface.js";
export * from "./errors.js";
export * from "./config.js";
export { createRealtime } from "./realtime.js";
export { default as PocketBaseAdapter, type PocketBaseAdapterOptions } from "./pocketbase-adapter.js";
