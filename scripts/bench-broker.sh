#!/usr/bin/env bash
# `make bench-broker`: builds, and prints what the embedded broker does beside a fresh real broker. Shorter or longer with
# SANDBAR_BENCH_ROUNDS, SANDBAR_BENCH_BROKER_RECORDS, SANDBAR_BENCH_ROUND_TRIPS, SANDBAR_BENCH_TRANSACTIONS and
# SANDBAR_BENCH_MEGABYTES.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A broker of its own, so that nobody else's load is measured.
export SANDBAR_KAFKA_PORT=${SANDBAR_BENCH_KAFKA_PORT:-29592}
export SANDBAR_KAFKA_DATA=${TMPDIR:-/tmp}/sandbar-bench-broker-kafka-$(id -u)

cargo build --release --workspace --locked --bin sandbar --bin bench
scripts/kafka.sh provision
scripts/kafka.sh warm
trap 'scripts/kafka.sh clean' EXIT
target=${CARGO_TARGET_DIR:-$PWD/target}
export SANDBAR_BENCH_BINARY=$target/release/sandbar SANDBAR_BENCH_KAFKA_SCRIPT=$PWD/scripts/kafka.sh
"$target/release/bench" broker
