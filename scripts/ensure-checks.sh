#!/usr/bin/env bash
# Installs what checks files that no compiler sees into .tools/checks, when it is missing or its versions have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=.tools/checks
wanted=scripts/checks-requirements.txt
if ! cmp -s "$wanted" "$directory/installed" || ! "$directory/bin/python" -c '' 2> /dev/null; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r "$wanted" < /dev/null
    cp "$wanted" "$directory/installed"
fi
