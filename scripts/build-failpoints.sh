#!/usr/bin/env bash
# Builds the programs once more, with fail points, into a directory `failpoints` beside the others. With the same dependencies
# and their features, so that only our own code is built twice. `build-failpoints.sh release` does so with optimised ones.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-debug}
flags=(--workspace --bins)
[ "$profile" = release ] && flags+=(--release)

cargo build "${flags[@]}" --features confab-message/failpoints,confab-gateway/failpoints
mkdir -p "target/$profile/failpoints"
for program in gateway auth room message file; do
    ln -f "target/$profile/confab-$program" "target/$profile/failpoints/"
done
# And the ones without, in whose place they were.
cargo build "${flags[@]}"
