#!/usr/bin/env bash
# Installs the stock clients for Socket.IO and uploads that the tests drive, if they are missing or their versions have
# changed.
set -euo pipefail
cd "$(dirname "$0")/../tests/clients"

if ! cmp -s js/package-lock.json js/node_modules/.installed; then
    (cd js && npm ci --no-audit --no-fund --loglevel=error < /dev/null)
    cp js/package-lock.json js/node_modules/.installed
fi

if ! cmp -s python/requirements.txt python/.venv/installed || ! python/.venv/bin/python -c '' 2> /dev/null; then
    rm -rf python/.venv
    python3 -m venv python/.venv
    python/.venv/bin/pip install --quiet --disable-pip-version-check -r python/requirements.txt < /dev/null
    cp python/requirements.txt python/.venv/installed
fi
