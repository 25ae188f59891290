#!/usr/bin/env bash
# Checks that each dependency has the same features in `cargo run`, `cargo build --workspace` and
# `cargo test --workspace`, so that cargo builds none of them twice.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each package with its features. Our own crates differ on purpose, by the feature `testing`.
features() {
    cargo tree --locked --prefix none --format '{p} {f}' "$@" | grep -v '^confab' | sed 's/ (\*)$//' | sort -u
}

tests=$(features --workspace --edges normal,build,dev)

# compare COMMAND [CARGO-ARGUMENT]…: COMMAND may not build a dependency with fewer features than the workspace's tests.
compare() {
    local differing
    differing=$(comm -23 <(features --edges normal,build "${@:2}") <(echo "$tests"))
    [ -z "$differing" ] && return
    echo "$1 builds these with fewer features than cargo test --workspace; add the missing ones to Cargo.toml:"
    echo "$differing"
    exit 1
}

compare "cargo run"
compare "cargo build --workspace" --workspace
