// The list of scenarios.

import { access } from "./scenarios/access.mjs";
import { channels } from "./scenarios/channels.mjs";
import { interruptions } from "./scenarios/interruptions.mjs";
import { protocol } from "./scenarios/protocol.mjs";

/** Functions of `{ t, stage, sdk, alice, bob }` by name. Slow scenarios start first. */
export const scenarios = { ...interruptions, ...access, ...channels, ...protocol };

/** The part of the protocol that a scenario needs, where SDKs lack this part. */
export const needs = {
  "getState is asked for a position, and again if that is unrecoverable": "getState",
  "a tag filter is refused": "tagsFilter",
  "deltas are not used, and publications arrive whole": "delta",
};
