#!/usr/bin/env bash
# Builds the programs again with fail points, into the directory `failpoints` next to the other programs. The
# dependencies and their features are the same, so only our own code is built twice. `build-failpoints.sh release`
# builds optimised programs.
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
# Rebuilds the programs without fail points, which the first build replaced. Examples add the tests' dependencies, so
# that `cargo test` does not build our own crates again.
[ "$profile" = release ] || flags+=(--examples)
cargo build "${flags[@]}"
