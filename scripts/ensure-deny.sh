#!/usr/bin/env bash
# Builds cargo-deny into .tools if it is missing; takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
if [ "$(.tools/bin/cargo-deny --version 2> /dev/null)" != "cargo-deny $version" ]; then
    cargo install cargo-deny --version "$version" --locked --root .tools < /dev/null
fi
