#!/usr/bin/env bash
# Installs the Python tools in scripts/NAME-requirements.txt into .tools/NAME, if they are missing or their versions
# have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=.tools/$1
wanted=scripts/$1-requirements.txt
scripts/ensure-packages.sh python3:python3 venv:python3-venv
if ! cmp -s "$wanted" "$directory/installed" || ! "$directory/bin/python" -c '' 2> /dev/null; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r "$wanted" < /dev/null
    cp "$wanted" "$directory/installed"
fi
