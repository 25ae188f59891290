#!/usr/bin/env bash
# Builds the stock rust_socketio client that the tests drive. The build needs OpenSSL's headers.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/ensure-packages.sh pkg-config:pkg-config /usr/include/openssl/ssl.h:libssl-dev
cargo build --locked --quiet --manifest-path tests/clients/rust/Cargo.toml --target-dir target/stock-client
