"""Runs the gateway and a PocketBase side by side, with a demo chat, until Ctrl-C.

Steps: build the gateway, get PocketBase, prepare the data directory, start both, create the demo's content, print the
addresses, then wait for a signal or the end of a server. Progress goes to stderr; stdout carries only the result.
"""

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from pocketbase_api import PocketBase, get_status
from seed import seed

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
HOST = "127.0.0.1"
# Below the ports of outgoing connections, since the system could take such a port before the server listens.
UNASSIGNED = range(10_000, 32_000)
SUPERUSER = "admin@example.com"
READY_WITHIN = 30  # seconds; usually two or three are enough
STOP_WITHIN = 10  # seconds until a server is killed if it does not end by itself
# The folders of a PocketBase application, beside pb_data.
PARTS = ["pb_hooks", "pb_migrations"]
# Files of node_modules that are copied into PocketBase's folder of static files.
BROWSER_BUILDS = ["centrifuge/dist/centrifuge.js", "pocketbase/dist/pocketbase.es.mjs"]


class Failure(Exception):
    """An error that the user can correct; the message says how."""


def say(text):
    print(f"quickstart: {text}", file=sys.stderr, flush=True)


def main():
    options = parse_options()
    try:
        on_signals(interrupt)
        gateway_binary, pocketbase_binary, packages = build_gateway(), get_pocketbase(), get_packages()

        started = time.monotonic()
        stop = threading.Event()
        on_signals(lambda *_: stop.set())
        ports = choose_ports(options.port_gateway, options.port_pocketbase)
        site = Site(options.data.resolve(), *ports)
        site.prepare(pocketbase_binary, packages)
        with Servers(stop) as servers:
            site.start(servers, gateway_binary, pocketbase_binary)
            if not stop.is_set():
                announce(site.facts, time.monotonic() - started, options.headless)
            servers.watch()
            say("stopping")
        return 0
    except (Failure, OSError) as failure:
        say(failure)
        return 1
    except KeyboardInterrupt:
        return 130


def on_signals(handler):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def interrupt(*_):
    raise KeyboardInterrupt


def parse_options():
    parser = argparse.ArgumentParser(
        prog="deploy/quickstart.sh",
        description="Builds the gateway, gets a PocketBase, and runs both with a demo chat until Ctrl-C.",
        epilog="Environment: POCKETBASE, a PocketBase binary to use instead of a downloaded one; "
        "KONVERT_GATEWAY, a gateway binary to use instead of building one.",
    )
    parser.add_argument(
        "--port-gateway",
        type=port,
        default=8000,
        metavar="PORT",
        help="port of the gateway; the admin listener has the next port (default 8000; 0: free ports)",
    )
    parser.add_argument(
        "--port-pocketbase",
        type=port,
        default=8090,
        metavar="PORT",
        help="port of PocketBase (default 8090; 0: a free port)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=TARGET / "quickstart",
        metavar="DIR",
        help="directory of data, secret and logs, kept for the next run (default target/quickstart)",
    )
    parser.add_argument(
        "--headless",
        action="store_true",
        help="print one line of JSON with URLs and log-ins when ready, and nothing else on stdout",
    )
    return parser.parse_args()


def port(text):
    if not text.isdigit() or int(text) > 65534:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65534)")
    return int(text)


# --- binaries, packages and ports -----------------------------------------------------------------


def build_gateway():
    ready_made = os.environ.get("KONVERT_GATEWAY")
    if ready_made:
        if not os.access(ready_made, os.X_OK):
            raise Failure(f"$KONVERT_GATEWAY is {ready_made!r}, which is not an executable file; correct or unset it")
        return Path(ready_made).resolve()
    say("building the gateway (the first time takes minutes)")
    run(["cargo", "build", "--release"], "a Rust toolchain (rustup.rs)")
    return TARGET / "release" / "konvert-gateway"


def get_pocketbase():
    return Path(run([DEPLOY / "get-pocketbase.sh"], "bash", stdout=subprocess.PIPE).stdout.decode().strip())


def get_packages():
    """Installs the demo page's packages once, in the versions pinned in deploy/demo; returns their node_modules."""
    lock = DEPLOY / "demo" / "package-lock.json"
    cache = TARGET / "tools" / "demo-packages"
    installed = cache / "installed-lock.json"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        say("getting the demo page's packages from npm")
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copyfile(DEPLOY / "demo" / name, cache / name)
        npm = ["npm", "ci", "--prefix", cache, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run(npm, "Node.js with npm", stdout=subprocess.DEVNULL)
        shutil.copyfile(lock, installed)
    return cache / "node_modules"


def run(command, needs, stdout=None):
    """Runs a command to its end, with the output on stderr."""
    try:
        # The output of a build is progress; stdout carries only the result.
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout or sys.stderr)
    except FileNotFoundError:
        raise Failure(f"`{command[0]}` is missing: install {needs} and run this again") from None
    if done.returncode != 0:
        raise Failure(f"`{' '.join(map(str, command))}` failed; the reason is in the output above")
    return done


def choose_ports(gateway, pocketbase):
    """The ports of the gateway, the admin listener and PocketBase: the given ports, or free ports for 0."""
    held = []
    wishes = [
        ("the gateway", gateway, "--port-gateway"),
        ("the gateway's admin listener", gateway and gateway + 1, "--port-gateway (the admin port is the next one)"),
        ("PocketBase", pocketbase, "--port-pocketbase"),
    ]
    try:
        for whose, wish, option in wishes:
            listener = socket.socket()
            held.append(listener)
            # As servers do: lingering connections of an earlier run do not occupy the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bind(listener, [wish] if wish else random.sample(UNASSIGNED, 100))
            except OSError as error:
                raise Failure(
                    f"port {wish} for {whose} cannot be used ({error.strerror}); "
                    f"stop the program on this port, or choose another port with {option}"
                ) from None
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


def bind(listener, ports):
    """Binds to the first free port of the list."""
    for port in ports[:-1]:
        try:
            return listener.bind((HOST, port))
        except OSError:
            continue
    return listener.bind((HOST, ports[-1]))


# --- the two servers with their data --------------------------------------------------------------


class Site:
    """A data directory and the addresses of its servers."""

    def __init__(self, data, gateway_port, admin_port, pocketbase_port):
        self.data = data
        self.gateway_port, self.admin_port, self.pocketbase_port = gateway_port, admin_port, pocketbase_port
        self.gateway = f"http://{HOST}:{gateway_port}"
        self.admin = f"http://{HOST}:{admin_port}"
        self.pocketbase = f"http://{HOST}:{pocketbase_port}"
        self.facts = None

    def prepare(self, pocketbase_binary, packages):
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.secret = self._kept_secret("gateway-secret", 32)
        self.superuser = {"email": SUPERUSER, "password": self._kept_secret("superuser-password", 10)}
        public = self.data / "pb_public"
        public.mkdir(exist_ok=True)
        for source in [DEPLOY / "demo" / "index.html"] + [packages / build for build in BROWSER_BUILDS]:
            shutil.copyfile(source, public / source.name)
        # The gateway's hooks and migrations, then the chat's. They are copied, since automigrate and the dashboard
        # would otherwise write into the source tree.
        for part in PARTS:
            shutil.rmtree(self.data / part, ignore_errors=True)
            for source in (DEPLOY / "pocketbase", DEPLOY / "konvert" / "pocketbase"):
                shutil.copytree(source / part, self.data / part, dirs_exist_ok=True)
        # This command also applies the migrations.
        upsert = [*self._pocketbase(pocketbase_binary), "superuser", "upsert", *self.superuser.values()]
        done = subprocess.run(upsert, env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise Failure(f"PocketBase could not set up {self.data}:\n{done.stdout.decode()}")

    def start(self, servers, gateway_binary, pocketbase_binary):
        """Starts both servers; returns when clients can connect, or after a signal to stop."""
        serve = [*self._pocketbase(pocketbase_binary), "serve", f"--http={HOST}:{self.pocketbase_port}"]
        serve.append(f"--publicDir={self.data / 'pb_public'}")
        servers.start("PocketBase", serve, self._environment(), self.data / "pocketbase.log")
        servers.wait_for("PocketBase", f"{self.pocketbase}/api/health")

        serve = [gateway_binary, "serve", f"--listen={HOST}:{self.gateway_port}"]
        serve += [f"--admin-listen={HOST}:{self.admin_port}", f"--pocketbase-url={self.pocketbase}"]
        serve += ["--shutdown-spread=0"]  # no other gateway has to be protected from all clients returning at once
        servers.start("the gateway", serve, self._environment(), self.data / "gateway.log")
        self._seed()
        servers.wait_for("the gateway", f"{self.admin}/readyz")

    def _seed(self):
        try:
            users, room = seed(PocketBase(self.pocketbase, **self.superuser))
        except RuntimeError as error:
            raise Failure(f"the demo's content could not be created: {error}") from None
        self.facts = {
            "websocket": f"ws://{HOST}:{self.gateway_port}/connection/websocket",
            "gateway": self.gateway,
            "admin": self.admin,
            "pocketbase": self.pocketbase,
            "superuser": self.superuser,
            "users": [{key: user[key] for key in ("id", "email", "password")} for user in users],
            "room": room,
        }
        page = {"websocket": self.facts["websocket"], "room": room, "users": users}
        (self.data / "pb_public" / "config.json").write_text(json.dumps(page, indent=2))

    def _pocketbase(self, binary):
        return [
            binary,
            f"--dir={self.data / 'pb_data'}",
            f"--hooksDir={self.data / 'pb_hooks'}",
            f"--migrationsDir={self.data / 'pb_migrations'}",
            "--hooksWatch=false",
            "--hooksPool=100",
            "--automigrate=false",
        ]

    def _environment(self):
        return {**os.environ, "GATEWAY_SECRET": self.secret, "GATEWAY_URL": self.gateway}

    def _kept_secret(self, name, size):
        """A secret of `size` random bytes in the file `name`, created on the first run; only the owner may read it."""
        path = self.data / name
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(size))
        return path.read_text().strip()


class Servers:
    """Child processes, stopped in reverse order at the end of the block. A child that ends by itself is a Failure."""

    def __init__(self, stop):
        self._stop = stop
        self._children = []  # (name, process, log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.clear()
        for name, process, _ in reversed(self._children):
            process.terminate()
            deadline = time.monotonic() + STOP_WITHIN
            while process.poll() is None and time.monotonic() < deadline and not self._stop.is_set():
                time.sleep(0.02)
            if process.poll() is None:  # too slow, or a second signal came
                say(f"{name} has not stopped; killing the process")
                process.kill()
                process.wait()

    def start(self, name, command, environment, log):
        with open(log, "w") as output:
            # A session of its own: Ctrl-C in the terminal reaches only this script, which stops the servers in order.
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._children.append((name, process, log))

    def wait_for(self, name, url):
        deadline = time.monotonic() + READY_WITHIN
        answer = "nothing yet"
        while not self._stop.is_set():
            status, answer = get_status(url)
            if status == 200:
                return
            self._check()
            if time.monotonic() > deadline:
                raise Failure(f"{name} is not ready after {READY_WITHIN} s; {url} answers: {answer}\n{self._tails()}")
            time.sleep(0.05)

    def watch(self):
        while not self._stop.wait(0.2):
            self._check()

    def _check(self):
        for name, process, log in self._children:
            if process.poll() is not None:
                raise Failure(f"{name} ended (exit code {process.returncode}). The end of {log}:\n{tail(log)}")

    def _tails(self):
        return "\n".join(f"The end of {log}:\n{tail(log)}" for _, _, log in self._children)


def tail(log, lines=20):
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:]) or "  (empty)"


def announce(facts, seconds, headless):
    if headless:
        print(json.dumps(facts), flush=True)
        say(f"ready after {seconds:.1f} s")
        return
    logins = "\n".join(f"               {user['email']}  {user['password']}" for user in facts["users"])
    superuser = facts["superuser"]
    print(
        f"""
Ready after {seconds:.1f} s.

  Demo chat    {facts['pocketbase']}/?user=alice
               {facts['pocketbase']}/?user=bob        (open both, side by side)
  Users
{logins}
  WebSocket    {facts['websocket']}
  Dashboard    {facts['pocketbase']}/_/   {superuser['email']}  {superuser['password']}
  Metrics      {facts['admin']}/metrics   (health: /livez, /readyz)

Ctrl-C stops both.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
