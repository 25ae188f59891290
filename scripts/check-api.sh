#!/usr/bin/env bash
# Checks the API documents. docs/openapi.json and docs/asyncapi.json are valid; docs/postman_collection.json is
# generated from docs/openapi.json and passes. Swagger UI works in a browser, but not under a foreign host name. A
# browser opens links to files, and lets pages of allowed origins call. (End-to-end tests check that the documents match
# the server.)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-api-tools.sh
scripts/ensure-clients.sh
tools=tests/api-documents/node_modules/.bin

"$tools/validate-api" docs/openapi.json
node tests/api-documents/asyncapi.mjs docs/asyncapi.json
if ! node tests/api-documents/generate.mjs | cmp - docs/postman_collection.json; then
    echo "docs/postman_collection.json does not match docs/openapi.json; run \`make api-docs\` to regenerate it"
    exit 1
fi
target/debug/with-embedded sh -c \
    "'$tools/newman' run docs/postman_collection.json --working-dir docs --env-var baseUrl=\$CONFAB_URL --env-var serverKey=\$CONFAB_KEY --bail failure --reporters cli"
target/debug/with-embedded node tests/api-documents/swagger.mjs
target/debug/with-embedded node tests/api-documents/rebinding.mjs
target/debug/with-embedded node tests/api-documents/links.mjs
node tests/documents/beside.mjs CONFAB_ALLOWED_ORIGINS=http://chat.example,null,file:// -- node tests/api-documents/origins.mjs
