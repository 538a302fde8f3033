// The official SDKs, their encodings and transports, and the programs that drive the SDKs.

import { join } from "node:path";
import { root } from "../node/harness.mjs";

const tools = join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "tools/sdk");
const here = join(root, "tests/sdk");

/** The drivers' programs, arguments and environments. tests/run.sh installs the packages and builds the programs. */
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

/** Parts of the protocol that are missing in an SDK. */
const lacks = { java: ["getState", "delta", "tagsFilter"] };

/** SDK, encoding and transport of each run of the scenarios. */
export const sdks = [
  ["js", "json", "websocket"],
  ["js", "protobuf", "websocket"],
  ["js", "json", "http_stream"],
  ["js", "protobuf", "http_stream"],
  ["js", "json", "sse"],
  ["python", "json", "websocket"],
  ["python", "protobuf", "websocket"],
  ["go", "json", "websocket"],
  ["go", "protobuf", "websocket"],
  ["java", "protobuf", "websocket"],
].map(([sdk, encoding, transport]) => ({ sdk, encoding, transport, driver: drivers[sdk], lacks: lacks[sdk] ?? [] }));
