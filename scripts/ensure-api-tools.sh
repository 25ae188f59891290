#!/usr/bin/env bash
# Installs the tools that generate and run the Postman collection and drive a browser, if they are missing or their
# versions have changed.
set -euo pipefail
cd "$(dirname "$0")/../tests/api-documents"
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --no-audit --no-fund --loglevel=error < /dev/null
    cp package-lock.json node_modules/.installed
fi
