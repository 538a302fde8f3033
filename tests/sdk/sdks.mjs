// The official SDKs, with the encodings and transports of each.

import { join } from "node:path";
import { root } from "../node/harness.mjs";

const tools = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "tools/sdk");
const here = join(root, "tests/sdk");

/** Programs of the drivers, with arguments and environment. tests/run.sh builds and installs what they need. */
const drivers = {
  js: { program: process.execPath, args: [join(here, "js/driver.mjs")] },
  python: { program: "python3", args: [join(here, "python/driver.py")], env: { PYTHONPATH: join(tools, "python") } },
  go: { program: join(tools, "go/driver"), args: [] },
  java: {
    program: "java",
    // A quick start and little memory: the driver mostly waits.
    args: [
      ...["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m"],
      ...["-cp", `${join(tools, "java/jars")}/*:${join(tools, "java/classes")}`, "Driver"],
    ],
  },
};

/** Parts of the protocol that a version of an SDK does not have. */
const lacks = { java: ["getState", "delta", "tagsFilter"] };

/** Each way in which an SDK can connect. */
export const sdks = [
  ["js", "json", "websocket"],
  ["js", "protobuf", "websocket"],
  ["python", "json", "websocket"],
  ["python", "protobuf", "websocket"],
  ["go", "json", "websocket"],
  ["go", "protobuf", "websocket"],
  ["java", "protobuf", "websocket"],
].map(([sdk, encoding, transport]) => ({ sdk, encoding, transport, driver: drivers[sdk], lacks: lacks[sdk] ?? [] }));
