#!/usr/bin/env bash
# Searches for inputs that break the properties of tests/fuzz/properties: coverage-guided, with libFuzzer. Works on a
# stable toolchain with a C++ compiler; cargo-fuzz is installed where missing.
#
#   tests/fuzz/run.sh                      # every target for a minute
#   tests/fuzz/run.sh 600 commands redis   # these two for ten minutes each
#   FUZZ_JOBS=3 tests/fuzz/run.sh 600      # three at a time
#
# Collected inputs stay in target/fuzz/corpus, and the next run continues from there. Inputs that break a property go
# to target/fuzz/findings; copy an input into tests/fuzz/corpus once the fault is fixed, and cargo test replays it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${CARGO_TARGET_DIR:-$(cd "$here/../.." && pwd)/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
cargo_fuzz_version=0.13.2
tools=$work/tools/cargo-fuzz-$cargo_fuzz_version
longest_input=8192  # bytes
longest_run=10      # seconds for one input, which counts as a finding beyond
most_memory=1024    # MiB, as above

all=$(basename -s .rs "$here"/targets/*.rs)

main() {
  local seconds=${1:-60} target
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || fail "how many seconds for each target? \"$seconds\" is no whole number"
  if (($#)); then shift; fi
  local targets=("$@")
  if ((!$#)); then mapfile -t targets <<<"$all"; fi
  for target in "${targets[@]}"; do
    [[ -f $here/targets/$target.rs ]] || fail "there is no target \"$target\"; there are: ${all//$'\n'/ }"
  done
  build
  printf '%s\n' "${targets[@]}" | xargs -P "${FUZZ_JOBS:-1}" -I{} bash "$here/run.sh" --one {} "$seconds" || true
  report "${targets[@]}"
}

build() {
  command -v cargo >/dev/null || fail "cargo is missing; install a Rust toolchain (rustup.rs)"
  command -v c++ >/dev/null || fail "libFuzzer wants a C++ compiler; on Debian: apt-get install g++"
  if [[ ! -x $tools/bin/cargo-fuzz ]]; then
    CARGO_TARGET_DIR=$work/tools/build cargo install --quiet --locked --version "$cargo_fuzz_version" --root "$tools" cargo-fuzz
  fi
  # Without a sanitizer, which a stable toolchain does not offer: the gateway itself holds no unsafe code.
  (cd "$here" && PATH=$tools/bin:$PATH CARGO_TARGET_DIR=$work cargo fuzz build --fuzz-dir . --sanitizer none)
}

# one TARGET SECONDS: starts from the committed corpus and the inputs of earlier runs.
one() {
  local corpus=$work/corpus/$1 findings=$work/findings/$1
  mkdir -p "$corpus" "$findings" "$work/logs"
  "$work/$host/release/$1" "$corpus" "$here/corpus/$1" -max_total_time="$2" -max_len=$longest_input \
    -timeout=$longest_run -rss_limit_mb=$most_memory -artifact_prefix="$findings/" -print_final_stats=1 \
    >"$work/logs/$1" 2>&1
}

report() {
  local target found=0 log
  printf '\n%-10s %12s %8s %7s %9s %7s  %s\n' target executions per-sec edges features inputs result
  for target; do
    log=$work/logs/$target
    # #123 DONE cov: 960 ft: 1572 corp: 34/1927b lim: 442 exec/s: 0 rss: 28Mb
    awk -v target="$target" '
      / cov: / { for (i = 1; i < NF; i++) value[$i] = $(i + 1) }
      /^stat::/ { value[$1] = $2 }
      /panicked at|ERROR: libFuzzer/ && !result { result = $0 }
      END {
        split(value["corp:"], inputs, "/")
        printf "%-10s %12s %8s %7s %9s %7s  %s\n", target, value["stat::number_of_executed_units:"], \
          value["stat::average_exec_per_sec:"], value["cov:"], value["ft:"], inputs[1], result ? result : "nothing found"
      }' "$log"
    if ! grep -q '^Done ' "$log"; then
      found=1
      echo "           replay: $work/$host/release/$target $(sed -n 's/.*Test unit written to //p' "$log" | tail -1)"
    fi
  done
  return $found
}

fail() {
  echo "tests/fuzz/run.sh: $*" >&2
  exit 2
}

if [[ ${1:-} == --one ]]; then one "$2" "$3"; else main "$@"; fi
