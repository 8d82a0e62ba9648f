#!/usr/bin/env bash
# Builds the example modules (all, or those named) with `sandbar build`.
#
#   guests.sh [NAME...]    build
#   guests.sh format       check the format of the workspaces of modules
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
sandbar=${CARGO_TARGET_DIR:-$root/target}/release/sandbar

if [[ ${1:-} == format ]]; then
  for workspace in examples tests/guests; do
    if [[ -e $workspace/Cargo.toml ]]; then (cd "$workspace" && cargo fmt --all --check); fi
  done
  exit 0
fi

names=("$@")
if ((${#names[@]} == 0)); then
  for manifest in examples/*/sandbar.toml; do names+=("$(basename "$(dirname "$manifest")")"); done
fi
for name in "${names[@]}"; do
  echo "guest $name" >&2
  (cd "examples/$name" && "$sandbar" build)
done
