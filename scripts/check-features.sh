#!/usr/bin/env bash
# Each dependency has the same features in `cargo run`, `cargo build --workspace` and `cargo test --workspace`, so that none is
# built twice.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each package with its features. Our own crates differ on purpose, by `testing`.
features() {
    cargo tree --locked --prefix none --format '{p} {f}' "$@" | grep -v '^confab' | sed 's/ (\*)$//' | sort -u
}

tests=$(features --workspace --edges normal,build,dev)

# The first argument names what has fewer features than the workspace's tests.
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
