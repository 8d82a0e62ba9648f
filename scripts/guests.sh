#!/usr/bin/env bash
# Builds modules with `sandbar build`.
#
#   guests.sh              every example and every test guest
#   guests.sh NAME...      these examples
#   guests.sh format       check the format of their workspaces
#   guests.sh test         the examples' native tests
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
sandbar=$target/release/sandbar

if [[ ${1:-} == format ]]; then
  for workspace in examples tests/guests; do
    if [[ -e $workspace/Cargo.toml ]]; then (cd "$workspace" && cargo fmt --all --check); fi
  done
  exit 0
fi
if [[ ${1:-} == test ]]; then
  cd examples && exec cargo test --locked
fi

# An example's module goes where its manifest says, a test guest's into the target folder, for the tests to find.
build_example() { (cd "examples/$1" && "$sandbar" build --locked); }
build_test_guest() { "$sandbar" build --locked "tests/guests/$1" --out "$target/guests/$1.wasm"; }

if (($#)); then
  for name in "$@"; do build_example "$name"; done
else
  for manifest in examples/*/sandbar.toml; do build_example "$(basename "$(dirname "$manifest")")"; done
  mkdir -p "$target/guests"
  for manifest in tests/guests/*/Cargo.toml; do build_test_guest "$(basename "$(dirname "$manifest")")"; done
fi
