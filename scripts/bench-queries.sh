#!/usr/bin/env bash
# `make bench-queries`: what queries and writes by REST cost, beside a route that does nothing and RocksDB by itself. Shorter
# or longer with SANDBAR_BENCH_ROUNDS and SANDBAR_BENCH_QUERIES_KEYS, _CONNECTIONS, _SECONDS (of one measurement),
# _RECORDS_PER_SECOND (that come in while a busy host is asked) and _BACKLOG; SANDBAR_BENCH_ONLY=ac measures some parts only.
exec "$(dirname "${BASH_SOURCE[0]}")/bench.sh" queries
