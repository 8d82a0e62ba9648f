#!/usr/bin/env bash
# Builds modules with `sandbar build`.
#
#   guests.sh              every example and every test guest
#   guests.sh NAME...      these examples
#   guests.sh format       check the format of their workspaces
#   guests.sh test         the examples' native tests
#
# Each feature of a crate is another version of its module, NAME-FEATURE.wasm beside NAME.wasm.
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
  cd examples
  cargo test --locked
  exec cargo test --locked --package majority-vote --features two-thirds
fi

features_of() { sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9-]*\) *=.*/\1/p' "$1/Cargo.toml"; }

# An example's module goes where its manifest says, a test guest's into the target folder, for the tests to find.
build_example() {
  local folder=examples/$1 feature
  (cd "$folder" && "$sandbar" build --locked)
  for feature in $(features_of "$folder"); do
    "$sandbar" build --locked "$folder" --features "$feature" --out "$folder/$1-$feature.wasm"
  done
}
build_test_guest() {
  local folder=tests/guests/$1 feature
  "$sandbar" build --locked "$folder" --out "$target/guests/$1.wasm"
  for feature in $(features_of "$folder"); do
    "$sandbar" build --locked "$folder" --features "$feature" --out "$target/guests/$1-$feature.wasm"
  done
}

if (($#)); then
  for name in "$@"; do build_example "$name"; done
else
  for manifest in examples/*/sandbar.toml; do build_example "$(basename "$(dirname "$manifest")")"; done
  mkdir -p "$target/guests"
  for manifest in tests/guests/*/Cargo.toml; do build_test_guest "$(basename "$(dirname "$manifest")")"; done
fi
