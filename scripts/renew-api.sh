#!/usr/bin/env bash
# Generates docs/openapi.json from the code, and docs/postman_collection.json from docs/openapi.json.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-api-tools.sh
new=$(mktemp)
trap 'rm -f "$new"' EXIT
cargo run --quiet --package confab-gateway --example openapi > "$new"
cp "$new" docs/openapi.json
node tests/api-documents/generate.mjs > "$new"
cp "$new" docs/postman_collection.json
