#!/usr/bin/env bash
# Kill campaigns on a real Kafka. What each row does is in docs/src/reliability.md.
#
#   chaos.sh ci           the checker's self-test, then a small campaign; some minutes
#   chaos.sh long         the next slices of every row that has had too few faults, for about ten minutes; run it again
#                         until it says that nothing is left
#   chaos.sh ROW [COUNT]  one row, so many faults, added to the results
#
# `long` and single rows add to docs/reliability/results.json and write the table of the documentation anew.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-$PWD/target}

# The whole workspace, so that features are resolved as everywhere else and nothing native is compiled twice.
cargo build --release --workspace --locked --bins || exit 1
chaos=$target/release/chaos
[[ -e $target/guests/ledger.wasm ]] || scripts/guests.sh || exit 1

# The binary with failpoints, beside the usual one, which is built again after it.
failpoints() {
  local copy=$target/failpoints/sandbar
  [[ $copy -nt $target/release/sandbar ]] && return
  cargo build --release --workspace --locked --bin sandbar --features sandbar-host/failpoints || return 1
  mkdir -p "$target/failpoints"
  cp "$target/release/sandbar" "$copy.new"
  cargo build --release --workspace --locked --bin sandbar && mv "$copy.new" "$copy" && touch "$copy"
}

"$chaos" self-test || exit 1
case ${1:-ci} in
  ci) "$chaos" run A1 --count 10 --records 200000 --seed "${SEED:-1}" ;;
  long)
    failpoints || exit 1
    "$chaos" long && SANDBAR_UPDATE=1 "$chaos" document
    ;;
  *)
    if "$chaos" needs-failpoints "$1"; then failpoints || exit 1; fi
    "$chaos" run "$1" ${2:+--count "$2"} --record
    outcome=$?
    SANDBAR_UPDATE=1 "$chaos" document && exit "$outcome"
    ;;
esac
