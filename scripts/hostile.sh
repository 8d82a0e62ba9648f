#!/usr/bin/env bash
# The hostile suite: modules and records that attack the host, in the sandbox by itself and on a whole host. Ends with a
# line for each figure.
#
#   hostile.sh long        the rows as long as the documentation says (some minutes)
#   hostile.sh short       as `make test` runs them
set -uo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
log=$target/hostile-log.txt
: >"$log"
export SANDBAR_GUESTS=$target/guests SANDBAR_HOSTILE=${1:-long}

release=(--release --workspace --locked)
failed=
run() { cargo test "${release[@]}" "$@" 2>&1 | tee -a "$log" || failed=yes; }
# The whole of the sandbox's suite: good calls prove that the bad ones left nothing behind.
run --package sandbox --test sandbox_it -- --nocapture
run --package sandbar-host --test host_it -- --nocapture hostile compiling

printf '\n== figures\n'
figures=$(grep -ao 'hostile: .*' "$log" | sort -u)
printf '%s\n' "$figures"
# A figure that nobody measured is no success, whatever the tests say.
for figure in D1 D2 D5 D6 G1 G4 host; do
  if ! grep -q "^hostile: $figure [0-9]" <<<"$figures"; then
    echo "hostile: the figure $figure is missing"
    failed=yes
  fi
done
if [[ -n $failed ]]; then
  echo 'hostile: FAILED'
  exit 1
fi
