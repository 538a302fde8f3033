#!/usr/bin/env bash
# Builds the gateway and runs `konvert-gateway dev`: the gateway beside a PocketBase with a demo chat, until Ctrl-C.
# Options go to `dev`; `--help` lists them.
#
# Environment: KONVERT_GATEWAY, a gateway binary to use instead of a build; POCKETBASE, a PocketBase binary to use instead
# of a download.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
gateway=${KONVERT_GATEWAY:-}

if [[ -z $gateway ]]; then
  command -v cargo >/dev/null || { echo "quickstart: cargo is missing; install a Rust toolchain (rustup.rs) and run this again" >&2; exit 1; }
  echo "quickstart: building the gateway (the first time takes minutes)" >&2
  (cd "$root" && cargo build --release >&2)
  gateway=$target/release/konvert-gateway
fi

# exec: signals reach the process that stops both servers.
for option; do
  case $option in
    -h | --help) exec "$gateway" dev --help ;;
    --pocketbase | --pocketbase=*) exec "$gateway" dev --data "$target/dev" "$@" ;; # nothing to download
  esac
done
pocketbase=$("$root/deploy/get-pocketbase.sh")
exec "$gateway" dev --data "$target/dev" --pocketbase "$pocketbase" "$@"
