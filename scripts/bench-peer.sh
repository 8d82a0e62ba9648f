#!/usr/bin/env bash
# `make bench-peer`: builds both sides, starts a fresh real broker, and prints Kafka Streams beside Sandbar. Shorter or longer
# with SANDBAR_BENCH_ROUNDS, SANDBAR_BENCH_WARM_UP and SANDBAR_BENCH_KAFKA_RECORDS. SANDBAR_BENCH_ONLY names a part of the
# table (a pipeline, or `parts`), whose rows alone are measured and replaced. `bench-peer.sh change`, a part of `make
# bench-swaps`, prints what the change of a running application costs on both sides instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A broker of its own, so that the topics are new and nobody else's load is measured.
export SANDBAR_KAFKA_PORT=${SANDBAR_BENCH_KAFKA_PORT:-29692}
export SANDBAR_KAFKA_DATA=${TMPDIR:-/tmp}/sandbar-bench-peer-kafka-$(id -u)

target=${CARGO_TARGET_DIR:-$PWD/target}
command -v mvn >/dev/null || { echo "bench-peer: Maven is needed to build the Kafka Streams side (Debian: apt-get install maven)" >&2; exit 1; }
mvn -q -B -f tests/peer/pom.xml package -DbuildDirectory="$target/peer" >"$target/peer-build.log" 2>&1 ||
  { tail -n 20 "$target/peer-build.log" >&2; exit 1; }
cargo build --release --workspace --locked --bin sandbar --bin bench
scripts/guests.sh
scripts/kafka.sh clean
scripts/kafka.sh start
trap 'scripts/kafka.sh clean' EXIT
SANDBAR_KAFKA_BOOTSTRAP=$(scripts/kafka.sh bootstrap)
export SANDBAR_KAFKA_BOOTSTRAP SANDBAR_GUESTS=${SANDBAR_GUESTS:-$target/guests}
export SANDBAR_BENCH_RESULTS=${SANDBAR_BENCH_RESULTS-$PWD/docs/benchmarks}
export SANDBAR_BENCH_BINARY=$target/release/sandbar SANDBAR_BENCH_PEER=$target/peer
"$target/release/bench" "${1:-peer}"
