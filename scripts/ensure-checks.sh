#!/usr/bin/env bash
# Installs the linters for files other than code into .tools/checks.
set -euo pipefail
exec "$(dirname "$0")/ensure-venv.sh" checks
