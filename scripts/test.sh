#!/usr/bin/env bash
# Runs the stages of `make test`, or those that are named, and goes on after a failed one as long as that makes sense.
# Ends with a time for each stage and the runners' own summary lines.
set -uo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target"
log=$target/test-log.txt
: >"$log"

# Where scripts/guests.sh puts the test guests.
export SANDBAR_GUESTS=$target/guests

# Crates without native code are tested in the dev profile, with debug assertions; the others only in release.
pure=(engine broker sim sandbar sandbar-macros xtask)
release=(--release --workspace --locked)

stage_format() { cargo fmt --all --check && scripts/guests.sh format; }

# In the release profile, since its build scripts have built the native libraries already.
stage_lints() { cargo clippy "${release[@]}" --all-targets -- -D warnings; }

stage_rules() { cargo xtask tidy; }

stage_dependencies() {
  # All platforms are looked at, and the check itself downloads nothing.
  cargo fetch --quiet --locked && cargo xtask absent && scripts/cargo-deny.sh --offline check --hide-inclusion-graph bans licenses sources || return 1
  # The database of advisories is a git repository that not every machine can reach.
  if timeout 60 scripts/cargo-deny.sh fetch db >/dev/null 2>&1; then
    scripts/cargo-deny.sh --offline check --hide-inclusion-graph advisories
  else
    echo "advisories: not checked, their database cannot be reached from here"
  fi
}

stage_unit() {
  local packages=() name
  for name in "${pure[@]}"; do packages+=(--package "$name"); done
  cargo test --locked "${packages[@]}"
}

stage_build() { cargo build "${release[@]}" --bins; }

stage_guests() { scripts/guests.sh && scripts/guests.sh test; }

# A real broker for the stages that need one; tests that find no address here would skip it.
with_kafka() {
  kafka_started=yes
  scripts/kafka.sh start && SANDBAR_KAFKA_BOOTSTRAP=$(scripts/kafka.sh bootstrap) "$@"
}

stage_release() {
  local exclude=() name
  for name in "${pure[@]}" e2e; do exclude+=(--exclude "$name"); done
  with_kafka cargo test "${release[@]}" "${exclude[@]}"
}

stage_e2e() { with_kafka cargo test "${release[@]}" --test e2e_it; }

stage_conformance() { scripts/conformance.sh; }

# Also that the table in the documentation is what the results say.
stage_chaos() { scripts/chaos.sh ci && "$target/release/chaos" swaps ci && "$target/release/chaos" document; }

stage_docs() { cargo xtask doc-commands; }

all=(format rules dependencies unit lints build guests release e2e conformance chaos docs)
stages=("$@")
((${#stages[@]})) || stages=("${all[@]}")
times=()
failed=()
kafka_started=
trap '[[ -z $kafka_started ]] || scripts/kafka.sh clean' EXIT
for stage in "${stages[@]}"; do
  declare -F "stage_$stage" >/dev/null || { echo "test.sh: no stage '$stage'; there are: ${all[*]}" >&2; exit 2; }
  printf '\n== %s\n' "$stage"
  started=$SECONDS
  if "stage_$stage" > >(tee -a "$log") 2>&1; then outcome=ok; else outcome=FAILED failed+=("$stage"); fi
  # Not `wait`: a process that a stage left behind would keep its pipe open for ever.
  sleep 0.3
  times+=("$(printf '%-13s %5d s  %s' "$stage" $((SECONDS - started)) "$outcome")")
  # Without the binary nothing after it can run.
  [[ $stage == build && $outcome != ok ]] && break
done

printf '\n== stages\n'
printf '%s\n' "${times[@]}"
printf '\n== summaries\n'
grep -aE '^(test result|commands|conformance|chaos|skipped): ' "$log" | sed 's/; finished in.*//' || true
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}"
  exit 1
fi
