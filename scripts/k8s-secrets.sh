#!/usr/bin/env bash
# Prints the Secrets that the programs read, from variables: k8s-secrets.sh | kubectl -n confab apply -f -
# docs/kubernetes.md lists the variables and how to create their values. RELEASE is the name of a Helm release other than confab.
set -euo pipefail
LC_ALL=C

# secret NAME KEY VALUE [KEY VALUE]…
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s-%s\ndata:\n' "${RELEASE:-confab}" "$1"
    shift
    while [ $# -gt 0 ]; do
        printf '  %s: %s\n' "$1" "$(printf %s "$2" | base64 | tr -d '\n')"
        shift 2
    done
}

# encoded TEXT: as a part of a URL, where a password's @, /, : and % have another meaning.
encoded() {
    local rest=$1 character code
    while [ -n "$rest" ]; do
        character=${rest:0:1} rest=${rest:1}
        case $character in
            [A-Za-z0-9._~-]) printf %s "$character" ;;
            *) printf -v code %d "'$character" && printf %%%02X $((code & 255)) ;;
        esac
    done
}

# store NAME ROLE PASSWORD
store() {
    secret "$1" url "postgres://$2:$(encoded "$3")@$POSTGRES"
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
# Without either key the file service gets its rights from where it runs.
if [ -n "${S3_ACCESS_KEY_ID-}${S3_SECRET_ACCESS_KEY-}" ]; then
    secret objects access-key-id "${S3_ACCESS_KEY_ID:?}" secret-access-key "${S3_SECRET_ACCESS_KEY:?}"
fi
