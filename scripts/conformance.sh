#!/usr/bin/env bash
# Runs the conformance suite on the embedded broker and on a real Kafka, and compares the results with the table in the
# documentation; SANDBAR_UPDATE=1 writes it anew. `conformance.sh long` runs the exactly-once loop on the embedded
# broker, 20 times with the broker killed and 20 times with the client killed.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-$PWD/target}

# The whole workspace, so that features are resolved as everywhere else and nothing native is compiled twice.
cargo build --release --workspace --locked --bin conformance || exit 1
conformance=$target/release/conformance

if [[ ${1:-} == long ]]; then
  failed=0
  for victim in broker client; do "$conformance" eos-loop --embedded --kill "$victim" --runs 20 || failed=1; done
  exit "$failed"
fi

failed=0
for broker in embedded kafka; do
  "$conformance" run "--$broker" --json "$target/conformance-$broker.json" || failed=1
done
"$conformance" document "$target/conformance-embedded.json" "$target/conformance-kafka.json" || failed=1
exit "$failed"
