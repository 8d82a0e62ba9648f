#!/usr/bin/env bash
# `make bench-isolation`: what it costs that one bad record costs one record: savepoints, poison, a hostile neighbour. Shorter
# or longer with SANDBAR_BENCH_ROUNDS and SANDBAR_BENCH_ISOLATION_RECORDS (of a run of parts a and b), _SECONDS and
# _PER_SECOND (of a turn of part c); SANDBAR_BENCH_ONLY=ab measures some parts only, SANDBAR_BENCH_ISOLATION_ONE_PROCESS=1 has
# both applications of part c in one process.
exec "$(dirname "${BASH_SOURCE[0]}")/bench.sh" isolation
