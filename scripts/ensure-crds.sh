#!/usr/bin/env bash
# Installs the custom resource definitions for checking the manifests, if they are missing or their versions have
# changed.
set -euo pipefail
cd "$(dirname "$0")/crds"
../ensure-packages.sh node:nodejs npm:npm
if ! cmp -s package-lock.json node_modules/.installed; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error < /dev/null
    cp package-lock.json node_modules/.installed
fi
