#!/usr/bin/env bash
# Builds releases of the gateway: static binaries, tarballs, checksums and a list of the components (SBOM).
#
#   deploy/release.sh                  tarballs for x86_64 and aarch64 into target/releases
#   deploy/release.sh x86_64           one architecture
#   deploy/release.sh --binary FILE    only the static binary for this machine
#
# Required: a Rust toolchain with rustup, Python 3, git, and for the machine's own architecture musl-gcc (Debian:
# musl-tools). For the other architecture, zig compiles the C code: the Python package ziglang, installed if missing into
# target/tools. A tarball depends only on the commit, the toolchain and the paths of the folders: two builds in the same
# place have the same checksum.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target_folder=${CARGO_TARGET_DIR:-$root/target}
releases=$target_folder/releases
tools=$target_folder/tools
zig_version=0.17.1
# Leaves out AES-GCM for AVX-512: 0.7 MB of code for a faster TLS towards PocketBase and Redis, which has AES-NI left.
without_avx512=-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX

usage() { sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }
say() { echo "release: $*" >&2; }
fail() { say "$*"; exit 1; }

main() {
  local architectures=()
  case ${1:-} in
    -h | --help) usage; return ;;
    --binary)
      build "$(uname -m)"
      install -m 755 "$(binary_of "$(uname -m)")" "${2:?a file for the binary}"
      return
      ;;
    "") architectures=(x86_64 aarch64) ;;
    x86_64 | aarch64) architectures=("$1") ;;
    *) fail "unknown argument $1 (see --help)" ;;
  esac
  [[ -z $(git status --porcelain --untracked-files=no) ]] || fail "there are changes that are not committed; commit them, since --version names the commit"
  mkdir -p "$releases"
  local architecture
  for architecture in "${architectures[@]}"; do
    build "$architecture"
    pack "$architecture"
  done
  (cd "$releases" && sha256sum ./*.tar.gz ./*.cdx.json >SHA256SUMS)
  say "done: $releases"
  ls -l "$releases" >&2
}

binary_of() { echo "$target_folder/$1-unknown-linux-musl/dist/konvert-gateway"; }

# build ARCHITECTURE: the static binary, without symbols.
build() {
  local architecture=$1 target=$1-unknown-linux-musl upper commit
  upper=$(tr 'a-z-' 'A-Z_' <<<"$target")
  commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
  [[ -d $(rustc --print target-libdir --target "$target" 2>/dev/null) ]] || rustup target add "$target" >&2 ||
    fail "the Rust target $target is missing"
  local variables=("KONVERT_COMMIT=$commit" "CFLAGS_${target//-/_}=$without_avx512")
  if [[ $architecture == $(uname -m) ]]; then
    command -v musl-gcc >/dev/null || fail "musl-gcc is missing; install the package musl-tools"
  else
    need_zig "$architecture"
    variables+=(
      "CC_${target//-/_}=$tools/zig/$architecture-cc" "AR_${target//-/_}=$tools/zig/ar"
      "CARGO_TARGET_${upper}_LINKER=rust-lld"
    )
  fi
  say "building for $target"
  env "${variables[@]}" cargo build --profile dist --locked --bin konvert-gateway --target "$target" >&2
}

# Compiler and archiver under names of their own, as build scripts want them.
need_zig() {
  local architecture=$1 python=$tools/zig/python
  if [[ ! -d $python ]]; then
    say "installing ziglang $zig_version"
    python3 -m pip --disable-pip-version-check install --quiet --target "$python" "ziglang==$zig_version" >&2
  fi
  # Rust's build scripts pass --target in Rust's spelling, which zig does not know. Zig checks for undefined behaviour
  # unless told otherwise, and Rust's linker does not have the functions for that.
  cat >"$tools/zig/$architecture-cc" <<SCRIPT
#!/usr/bin/env bash
arguments=()
for argument; do [[ \$argument == --target=* ]] || arguments+=("\$argument"); done
exec env PYTHONPATH="$python" python3 -m ziglang cc -target $architecture-linux-musl -fno-sanitize=undefined "\${arguments[@]}"
SCRIPT
  printf '#!/bin/sh\nPYTHONPATH="%s" exec python3 -m ziglang ar "$@"\n' "$python" >"$tools/zig/ar"
  chmod +x "$tools/zig/$architecture-cc" "$tools/zig/ar"
}

# pack ARCHITECTURE: the binary with everything that install.sh needs, and the list of components beside the tarball.
pack() {
  local architecture=$1 version name folder time
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
  name=konvert-gateway-$version-$architecture-linux
  folder=$(mktemp -d)
  time=$(git log -1 --format=%ct)
  mkdir -p "$folder/$name/bin"
  install -m 755 "$(binary_of "$architecture")" "$folder/$name/bin/konvert-gateway"
  git archive HEAD README.md CHANGELOG.md LICENSE .dockerignore deploy proto | tar -x -C "$folder/$name"
  # The chat's page is built, not committed.
  if [[ -e deploy/konvert/chat/dist/index.html ]]; then
    mkdir -p "$folder/$name/deploy/konvert/chat"
    cp -r deploy/konvert/chat/dist "$folder/$name/deploy/konvert/chat/dist"
  fi
  tar -C "$folder" --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --mode='u+w,go-w' -c "$name" |
    gzip -9 -n >"$releases/$name.tar.gz"
  components "$architecture-unknown-linux-musl" "$version" >"$releases/$name.cdx.json"
  rm -rf "$folder"
}

# components TARGET VERSION: the crates in the binary as CycloneDX, with the checksums of Cargo.lock.
components() {
  cargo metadata --format-version 1 --locked --filter-platform "$1" | python3 -c '
import json, sys, tomllib

metadata = json.load(sys.stdin)
with open("Cargo.lock", "rb") as lock:
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.load(lock)["package"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
own = metadata["resolve"]["root"]
found, waiting = set(), [own]
while waiting:  # dependencies of the program, without those of tests
    node = nodes[waiting.pop()]
    if node["id"] in found:
        continue
    found.add(node["id"])
    waiting += [d["pkg"] for d in node["deps"] if any(k["kind"] != "dev" for k in d["dep_kinds"])]
components = []
for package in sorted((p for p in metadata["packages"] if p["id"] in found - {own}), key=lambda p: (p["name"], p["version"])):
    component = {
        "type": "library", "name": package["name"], "version": package["version"],
        "purl": "pkg:cargo/%s@%s" % (package["name"], package["version"]),
    }
    if package.get("license"):
        component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((package["name"], package["version"])):
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    components.append(component)
json.dump({
    "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
    "metadata": {"component": {"type": "application", "name": "konvert-gateway", "version": sys.argv[1]}},
    "components": components,
}, sys.stdout, indent=1)
' "$2"
}

main "$@"
