#!/usr/bin/env bash
# Prints the Secrets that the programs read, from variables: k8s-secrets.sh | kubectl -n confab apply -f -
# docs/kubernetes.md lists the variables and how to create their values.
set -euo pipefail

# secret NAME KEY VALUE [KEY VALUE]…
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\nstringData:\n' "$1"
    shift
    while [ $# -gt 0 ]; do
        printf "  %s: '%s'\n" "$1" "${2//\'/\'\'}"
        shift 2
    done
}

# store NAME ROLE PASSWORD
store() {
    secret "$1" url "postgres://$2:$3@$POSTGRES"
}

: "${POSTGRES:?host:port/database, as in db.example.org:5432/confab?sslmode=require}"
store migrations confab_migrate "${MIGRATE_DB_PASSWORD:?}"
store auth-store confab_auth "${AUTH_DB_PASSWORD:?}"
store room-store confab_room "${ROOM_DB_PASSWORD:?}"
store message-store confab_message "${MESSAGE_DB_PASSWORD:?}"
store file-store confab_file "${FILE_DB_PASSWORD:?}"
secret bus url "${REDIS_URL:?as in rediss://user:password@redis.example.org:6379}"
secret cluster-key key "${CONFAB_CLUSTER_KEY:?}"
secret signing-key key.pem "${CONFAB_SIGNING_KEY:?}"
secret objects access-key-id "${S3_ACCESS_KEY_ID:?}" secret-access-key "${S3_SECRET_ACCESS_KEY:?}"
