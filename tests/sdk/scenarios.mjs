// The scenarios that every SDK must pass, in every encoding, over every transport and in every topology.

import { access } from "./scenarios/access.mjs";
import { channels } from "./scenarios/channels.mjs";
import { interruptions } from "./scenarios/interruptions.mjs";
import { protocol } from "./scenarios/protocol.mjs";

/** By name: a function of `{ t, stage, sdk, alice, bob }`. The slow ones are first. */
export const scenarios = { ...interruptions, ...access, ...channels, ...protocol };

/** Scenarios for SDKs that have a part of the protocol which others lack. */
export const needs = {
  "getState is asked for a position, and again if that is unrecoverable": "getState",
  "a tag filter is refused": "tagsFilter",
  "deltas are not used, and publications arrive whole": "delta",
};
