#!/usr/bin/env bash
# Versions that take over from each other on a real Kafka. What the rows do is in docs/src/reliability.md.
#
#   swaps.sh ci       the judge's self-test, then some of all in a minute
#   swaps.sh long     the next slices of the rows G3 that have had too few swaps, for about ten minutes; run it again until
#                     it says that nothing is left; adds to docs/reliability/results.json and its table
#   swaps.sh bench    what a swap costs at 20,000 records a second, and a stop and a start of Kafka Streams beside it
#                     (docs/benchmarks/swaps.md)
#
# Ends with a line of counts.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-$PWD/target}

cargo build --release --workspace --locked --bins || exit 1
chaos=$target/release/chaos
for version in b migrates migrates-fragile; do
  [[ -e $target/guests/versions-$version.wasm ]] || { scripts/guests.sh || exit 1; break; }
done

case ${1:-ci} in
  ci) "$chaos" self-test && "$chaos" swaps ci ;;
  long)
    "$chaos" self-test || exit 1
    "$chaos" swaps long
    outcome=$?
    SANDBAR_UPDATE=1 "$chaos" document && exit "$outcome"
    ;;
  bench) "$chaos" bench-swaps "${@:2}" && scripts/bench-peer.sh change ;;
  *) echo "swaps.sh: ci, long or bench, not '$1'" >&2; exit 2 ;;
esac
