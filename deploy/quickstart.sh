#!/usr/bin/env bash
# Builds the gateway and the chat, and runs `konvert-gateway dev`: the gateway beside a PocketBase with a demo chat, until
# Ctrl-C. The chat is built with npm; without Node.js, or with --plain, a plain page is served instead. Options go to
# `dev`; `--help` lists them.
#
# Environment: KONVERT_GATEWAY, a gateway binary to use instead of a build; POCKETBASE, a PocketBase binary to use instead
# of a download.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
gateway=${KONVERT_GATEWAY:-}
chat=$root/deploy/konvert/chat

say() { echo "quickstart: $*" >&2; }

usage() {
  sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"
  if [[ -x ${gateway:=$target/release/konvert-gateway} ]]; then
    printf '\nOptions:\n\n'
    exec "$gateway" dev --help
  fi
  printf '\nThe gateway is not built yet. Once it is, this help also lists the options.\n'
  exit 0
}

# Builds the chat unless it is newer than its sources. A failure is no reason to stop: the plain page needs no build.
build_chat() {
  local major log=$target/chat-build.log
  major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
  if ! command -v npm >/dev/null || ((${major:-0} < 20)); then
    say "serving a plain page; the complete chat needs Node.js 20 or later with npm (nodejs.org)"
    return 1
  fi
  if [[ -f $chat/dist/index.html && -z $(find "$chat" "$chat/../backend-adapter" \
    \( -name node_modules -o -name dist \) -prune -o -type f -newer "$chat/dist/index.html" -print -quit) ]]; then
    return 0
  fi
  say "building the chat (the first time takes a minute)"
  mkdir -p "$target"
  if ! (cd "$chat" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run build) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "the chat could not be built (all of the output: $log); serving a plain page"
    return 1
  fi
}

for option; do
  case $option in
    -h | --help) usage ;; # before the build, which takes minutes
  esac
done

if [[ -z $gateway ]]; then
  command -v cargo >/dev/null || { say "cargo is missing; install a Rust toolchain (rustup.rs) and run this again"; exit 1; }
  say "building the gateway (the first time takes minutes)"
  (cd "$root" && cargo build --release >&2)
  gateway=$target/release/konvert-gateway
fi

# exec: signals reach the process that stops both servers.
pocketbase=() page=chosen
for option; do
  case $option in
    --pocketbase | --pocketbase=*) pocketbase=(none) ;; # nothing to download
    --plain | --site | --site=*) page=named ;;
  esac
done
options=(--data "$target/dev")
if [[ $page == chosen ]]; then
  if build_chat; then options+=(--site "$chat/dist"); else options+=(--plain); fi
fi
if ((${#pocketbase[@]} == 0)); then
  found=$("$root/deploy/get-pocketbase.sh")
  options+=(--pocketbase "$found")
fi
exec "$gateway" dev "${options[@]}" "$@"
