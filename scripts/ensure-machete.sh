#!/usr/bin/env bash
# Builds cargo-machete, which finds unused dependencies, into .tools if it is missing; takes about a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.9.2
if [ "$(.tools/bin/cargo-machete --version 2> /dev/null)" != "$version" ]; then
    cargo install cargo-machete --version "$version" --locked --root .tools < /dev/null
fi
