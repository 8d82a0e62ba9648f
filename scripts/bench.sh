#!/usr/bin/env bash
# `make bench`, and `make bench-commits`, `bench-restore` and `bench-restart` with that word as the argument: builds, makes
# the guests, starts a fresh real broker and prints the tables. SANDBAR_BENCH_ROUNDS, SANDBAR_BENCH_CORE_RECORDS,
# SANDBAR_BENCH_KAFKA_RECORDS, SANDBAR_BENCH_RESTORE_RECORDS, SANDBAR_BENCH_RESTORE_KEYS and SANDBAR_BENCH_RESTART_KEYS
# make it shorter or longer. scripts/bench-queries.sh and scripts/bench-isolation.sh come here too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A broker of its own, so that the input topic is new and nobody else's load is measured.
export SANDBAR_KAFKA_PORT=${SANDBAR_BENCH_KAFKA_PORT:-29492}
export SANDBAR_KAFKA_DATA=${TMPDIR:-/tmp}/sandbar-bench-kafka-$(id -u)

cargo build --release --workspace --locked --bin sandbar --bin bench
scripts/guests.sh
scripts/kafka.sh clean
scripts/kafka.sh start
trap 'scripts/kafka.sh clean' EXIT
SANDBAR_KAFKA_BOOTSTRAP=$(scripts/kafka.sh bootstrap)
target=${CARGO_TARGET_DIR:-$PWD/target}
export SANDBAR_KAFKA_BOOTSTRAP SANDBAR_GUESTS=${SANDBAR_GUESTS:-$target/guests}
"$target/release/bench" "$@"
