#!/usr/bin/env bash
# Generates the secrets of docker-compose.yml: compose-env.sh [FILE], by default .env. Does not replace an existing
# file, because the databases in the volumes depend on its secrets.
set -euo pipefail
file=${1:-$(dirname "$0")/../.env}

if [ -e "$file" ]; then
    echo "$file already exists; to start over, remove it and the volumes (docker compose down --volumes)" >&2
    exit 1
fi

# Characters without a special meaning in a URL, a shell, or compose.
random() {
    od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'
}

umask 077
{
    echo "# Secrets of docker-compose.yml, from scripts/compose-env.sh. Keep a copy: the data in the volumes needs them."
    for name in CONFAB_CLUSTER_KEY POSTGRES_PASSWORD MIGRATE_DB_PASSWORD AUTH_DB_PASSWORD ROOM_DB_PASSWORD \
        MESSAGE_DB_PASSWORD FILE_DB_PASSWORD REDIS_PASSWORD S3_SECRET_ACCESS_KEY GRAFANA_PASSWORD; do
        echo "$name=$(random)"
    done
    # An Ed25519 key is 32 bytes, which Confab accepts in base64.
    echo "CONFAB_SIGNING_KEY=$(head -c 32 /dev/urandom | base64)"
} > "$file.new"
mv "$file.new" "$file"
