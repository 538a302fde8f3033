// All scenarios, with the published official SDKs, in all encodings and over all transports of each SDK, on one gateway
// and on two.

import { after, before, describe, test } from "node:test";
import { needs, scenarios } from "./scenarios.mjs";
import { sdks } from "./sdks.mjs";
import { Stage, topologies } from "./stage.mjs";

/** Runs and scenarios at the same time; scenarios mostly wait. */
const [SDKS_AT_ONCE, SCENARIOS_AT_ONCE] = [2, 5];

describe("scenarios", { concurrency: true }, () => {
  for (const topology of Object.keys(topologies)) {
    describe(topology, { concurrency: SDKS_AT_ONCE }, () => {
      const stage = new Stage();
      before(() => stage.start(topology));
      after(() => stage.stop());
      for (const sdk of sdks) {
        describe(`${sdk.sdk}, ${sdk.encoding}, ${sdk.transport}`, { concurrency: SCENARIOS_AT_ONCE }, () => {
          let members;
          const users = () => (members ??= Promise.all([stage.user(), stage.user()]));
          for (const [name, scenario] of Object.entries(scenarios)) {
            if (sdk.lacks.includes(needs[name])) continue;
            test(name, (t) =>
              stage.explained(async () => {
                const [alice, bob] = await users();
                await scenario({ t, stage, sdk, alice, bob });
              }),
            );
          }
        });
      }
    });
  }
});
