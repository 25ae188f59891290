#!/usr/bin/env bash
# Installs what makes and runs the Postman collection, and what drives a browser, when it is missing or its versions have changed.
set -euo pipefail
cd "$(dirname "$0")/../tests/api-documents"
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --no-audit --no-fund --loglevel=error < /dev/null
    cp package-lock.json node_modules/.installed
fi
