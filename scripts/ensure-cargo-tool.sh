#!/usr/bin/env bash
# ensure-cargo-tool.sh NAME VERSION: builds this cargo subcommand into .tools if that version is missing; takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
# Some tools print their name before the version.
installed=$(".tools/bin/$1" --version 2> /dev/null || true)
if [ "${installed##* }" != "$2" ]; then
    echo "building $1 $2"
    cargo install "$1" --version "$2" --locked --root .tools < /dev/null
fi
