// A Docker daemon of the tests' own, with data, socket and networks of its own, and everything undone afterwards.
//
// `node dockerd.mjs` starts and stops one, and says whether that works on this machine.

import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { ROOT, until } from "../../pocketbase/harness.mjs";

export const TOOLS = path.join(process.env.CARGO_TARGET_DIR || path.join(ROOT, "target"), "tools");

/** Runs a command to its end; throws with its output if it fails. Returns standard output and standard error. */
export function run(command, args, { allowFailure = false, ...options } = {}) {
  const ended = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 << 20, ...options });
  if (ended.error) throw ended.error;
  const output = ended.stdout + ended.stderr;
  if (ended.status !== 0 && !allowFailure) {
    throw new Error(`${command} ${args.join(" ")}: exit code ${ended.status}\n${output.slice(-8000)}`);
  }
  return { status: ended.status, stdout: ended.stdout, output };
}

export class Dockerd {
  static async start() {
    const it = new Dockerd();
    // Short, since the path of a Unix socket has 107 bytes at most; not in memory, since images are large.
    it.folder = mkdtempSync("/var/tmp/konvert-docker-");
    it.before = { rules: rules(), links: links(), forward: readFileSync(FORWARD, "utf8") };
    const socket = path.join(it.folder, "docker.sock");
    const [data, state] = ["data", "state"].map((name) => path.join(it.folder, name));
    const log = openSync(path.join(it.folder, "log"), "w");
    const args = ["--data-root", data, "--exec-root", state, "--host", `unix://${socket}`];
    args.push("--pidfile", path.join(it.folder, "pid"), "--default-ulimit", "nofile=20000:20000");
    it.process = spawn("dockerd", args, { stdio: ["ignore", log, log] });
    it.env = { ...process.env, DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: it.folder, DOCKER_BUILDKIT: "0" };
    mkdirSync(path.join(it.folder, "cli-plugins"));
    const plugin = path.join(it.folder, "cli-plugins/docker-compose");
    copyFileSync(path.join(TOOLS, "docker-compose/docker-compose"), plugin);
    chmodSync(plugin, 0o755);
    writeFileSync(path.join(it.folder, "config.json"), "{}");
    try {
      await until(
        () => {
          if (it.process.exitCode !== null) throw new Error("dockerd ended");
          return it.docker(["info"], { allowFailure: true }).status === 0;
        },
        "dockerd to answer",
        30_000,
      );
    } catch (error) {
      const said = it.log().split("\n").slice(-5).join("\n");
      await it.stop();
      throw new Error(`${error.message}:\n${said}`);
    }
    return it;
  }

  log() {
    return readFileSync(path.join(this.folder, "log"), "utf8");
  }

  docker(args, options) {
    return run("docker", args, { env: this.env, ...options });
  }

  /** Stops all containers and the daemon; then removes its rules, bridges, mounts and files. */
  async stop() {
    if (this.process.exitCode === null) {
      const running = this.docker(["ps", "--quiet"], { allowFailure: true }).stdout.split("\n").filter(Boolean);
      if (running.length > 0) this.docker(["kill", ...running], { allowFailure: true });
      const ended = new Promise((resolve) => this.process.once("exit", resolve));
      this.process.kill("SIGTERM");
      await ended;
    }
    const mounts = readFileSync("/proc/mounts", "utf8")
      .split("\n")
      .map((line) => line.split(" ")[1]);
    for (const mount of mounts.filter((mount) => mount?.startsWith(this.folder)).reverse()) {
      run("umount", ["-l", mount], { allowFailure: true });
    }
    run("iptables-restore", [], { input: this.before.rules, allowFailure: true });
    const added = links().filter((name) => !this.before.links.includes(name));
    for (const name of added.filter((name) => /^(docker0|br-|veth)/.test(name))) {
      run("ip", ["link", "delete", name], { allowFailure: true });
    }
    writeFileSync(FORWARD, this.before.forward);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const FORWARD = "/proc/sys/net/ipv4/ip_forward";

/** All tables, with the empty built-in ones, so that restoring them removes Docker's chains. */
function rules() {
  const saved = run("iptables-save", []).stdout;
  const empty = { nat: ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"], filter: ["INPUT", "FORWARD", "OUTPUT"] };
  const missing = Object.entries(empty).filter(([table]) => !saved.includes(`*${table}\n`));
  const lines = missing.map(([table, chains]) => [
    `*${table}`,
    ...chains.map((chain) => `:${chain} ACCEPT [0:0]`),
    "COMMIT",
    "",
  ]);
  return saved + lines.flat().join("\n");
}

function links() {
  return run("ip", ["-o", "link"])
    .stdout.split("\n")
    .filter(Boolean)
    .map((line) => line.split(": ")[1].split("@")[0]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const daemon = await Dockerd.start().catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
  await daemon.stop();
}
