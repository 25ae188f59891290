#!/usr/bin/env bash
# Installs buf, which checks the gRPC contract and calls services by hand, as .tools/bin/buf.
set -euo pipefail
cd "$(dirname "$0")/buf"
if ! cmp -s package-lock.json node_modules/.installed; then
    # Each platform's package contains the program, so no install script needs to run.
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error < /dev/null
    cp package-lock.json node_modules/.installed
fi
mkdir -p ../../.tools/bin
ln -sfn ../../scripts/buf/node_modules/.bin/buf ../../.tools/bin/buf
