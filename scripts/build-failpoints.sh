#!/usr/bin/env bash
# Builds the programs again with fail points, into the directory `failpoints` beside the others. The dependencies and their
# features are the same, so only our own code is built twice. `build-failpoints.sh release` builds optimised ones.
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
# Rebuilds the programs without fail points, which the first build replaced. Examples bring in what tests need, so that
# `cargo test` builds none of our own crates once more.
[ "$profile" = release ] || flags+=(--examples)
cargo build "${flags[@]}"
