// A Docker daemon of the tests' own, with data, socket and networks of its own, and everything undone afterwards.
//
// `node dockerd.mjs` starts and stops one, and says whether that works on this machine. `node dockerd.mjs COMMAND...`
// runs a command while one runs, and all tests below the command use this daemon; its exit code is the command's.

import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
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

/** The image of base.sh. */
export const BASE = "konvert-test-base:local";
/** The folder of a daemon that runs already, for `Dockerd.get`. */
const RUNNING = "KONVERT_TEST_DOCKER";

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
  /** The daemon of the command around the tests, which stays, or else a new one; with the base image. */
  static async get() {
    if (process.env[RUNNING]) return new Dockerd(process.env[RUNNING]);
    const it = await Dockerd.start();
    it.docker(["import", "--change", 'CMD ["/sbin/init"]', path.join(TOOLS, "deploy-base.tar"), BASE]);
    return it;
  }

  constructor(folder) {
    this.folder = folder;
    const DOCKER_HOST = `unix://${path.join(folder, "docker.sock")}`;
    this.env = { ...process.env, DOCKER_HOST, DOCKER_CONFIG: folder, DOCKER_BUILDKIT: "0", [RUNNING]: folder };
  }

  static async start() {
    // Short, since the path of a Unix socket has 107 bytes at most; not in memory, since images are large.
    const it = new Dockerd(mkdtempSync("/var/tmp/konvert-docker-"));
    it.before = { rules: rules(), links: links(), forward: readFileSync(FORWARD, "utf8") };
    try {
      await it.#start();
    } catch (error) {
      const said = it.process ? `:\n${it.log().split("\n").slice(-5).join("\n")}` : "";
      await it.stop();
      throw new Error(error.message + said);
    }
    return it;
  }

  async #start() {
    mkdirSync(path.join(this.folder, "cli-plugins"));
    const plugin = path.join(this.folder, "cli-plugins/docker-compose");
    copyFileSync(path.join(TOOLS, "docker-compose/docker-compose"), plugin);
    chmodSync(plugin, 0o755);
    writeFileSync(path.join(this.folder, "config.json"), "{}");
    const [data, state] = ["data", "state"].map((name) => path.join(this.folder, name));
    const log = openSync(path.join(this.folder, "log"), "w");
    const args = ["--data-root", data, "--exec-root", state, "--host", this.env.DOCKER_HOST];
    args.push("--pidfile", path.join(this.folder, "pid"), "--default-ulimit", "nofile=20000:20000");
    // In a process group of its own, so that Ctrl-C at the terminal reaches the tests alone, and `stop` ends it.
    this.process = spawn("dockerd", args, { stdio: ["ignore", log, log], detached: true });
    await until(
      () => {
        if (this.process.exitCode !== null) throw new Error("dockerd ended");
        return this.docker(["info"], { allowFailure: true }).status === 0;
      },
      "dockerd to answer",
      30_000,
    );
  }

  log() {
    return readFileSync(path.join(this.folder, "log"), "utf8");
  }

  docker(args, options) {
    return run("docker", args, { env: this.env, ...options });
  }

  /** Memory of a container without reclaimable file pages, as `docker stats` counts, in bytes. */
  memory(id) {
    const pid = this.docker(["inspect", "--format", "{{.State.Pid}}", id]).stdout.trim();
    const groups = readFileSync(`/proc/${pid}/cgroup`, "utf8");
    // cgroup v2 or v1
    const unified = `/sys/fs/cgroup${/^0::(.*)$/m.exec(groups)?.[1]}`;
    const [folder, file] = existsSync(path.join(unified, "memory.current"))
      ? [unified, "memory.current"]
      : [`/sys/fs/cgroup/memory${/memory:(.*)$/m.exec(groups)[1]}`, "memory.usage_in_bytes"];
    const read = (name) => readFileSync(path.join(folder, name), "utf8");
    return Number(read(file)) - Number(/^(?:total_)?inactive_file (\d+)$/m.exec(read("memory.stat"))[1]);
  }

  /** Stops all containers and the daemon, unless it was running before; then removes its rules, bridges, mounts, files. */
  async stop() {
    if (!this.before) return;
    if (this.process?.exitCode === null) {
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

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));

async function main([command, ...args]) {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  let child;
  for (const signal of signals) process.on(signal, () => child?.kill(signal));
  const daemon = await (command ? Dockerd.get() : Dockerd.start()).catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
  try {
    if (!command) return;
    child = spawn(command, args, { stdio: "inherit", env: daemon.env });
    process.exitCode = await new Promise((resolve, reject) => {
      child.once("error", reject).once("exit", (code) => resolve(code ?? 1));
    });
  } finally {
    await daemon.stop();
  }
}
