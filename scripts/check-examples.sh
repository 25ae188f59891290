#!/usr/bin/env bash
# Follows the documents as a reader does, each with a new server. Their commands and programs run as written, and their
# output matches the documents.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-clients.sh
scripts/ensure-venv.sh grpc

target/debug/with-embedded node tests/documents/talk.mjs
# A reader may run the first steps twice.
target/debug/with-embedded sh -ec \
    'for round in 1 2; do node tests/documents/follow.mjs "README.md#Five minutes" "README.md#Files"; done'
target/debug/with-embedded node tests/documents/follow.mjs docs/realtime.md
target/debug/with-embedded node tests/documents/follow.mjs docs/building.md
node tests/documents/beside.mjs CONFAB_TOKEN_TTL=4s -- node tests/documents/follow.mjs docs/tokens.md
node tests/documents/follow.mjs docs/grpc-callers.md
