#!/usr/bin/env bash
# Prints the programs' Secrets with values from variables: k8s-secrets.sh [NAME] | kubectl -n confab apply -f -
# Their names begin with NAME, by default confab. docs/kubernetes.md lists the variables and how to create their values.
set -euo pipefail
LC_ALL=C

# secret SUFFIX KEY VALUE [KEY VALUE]…
secret() {
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s-%s\ndata:\n' "$name" "$1"
    shift
    while [ $# -gt 0 ]; do
        printf '  %s: %s\n' "$1" "$(printf %s "$2" | base64 | tr -d '\n')"
        shift 2
    done
}

# encoded TEXT: percent-encodes TEXT for a URL, in which @, /, : and % are special.
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

# store SUFFIX ROLE PASSWORD
store() {
    secret "$1" url "postgres://$2:$(encoded "$3")@$POSTGRES"
}

# Reports all problems before it prints any Secret; otherwise kubectl would apply some of the Secrets.
name=${1:-confab}
problems=()
[[ $name =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] || problems+=("'$name' cannot begin the name of a Secret")
for variable in POSTGRES REDIS_URL {MIGRATE,AUTH,ROOM,MESSAGE,FILE}_DB_PASSWORD CONFAB_{CLUSTER,SIGNING}_KEY; do
    [ -n "${!variable-}" ] || problems+=("$variable is not set")
done
# Without both keys, the file service uses the role of its pod.
if [ -n "${S3_ACCESS_KEY_ID-}" ] && [ -z "${S3_SECRET_ACCESS_KEY-}" ]; then
    problems+=("S3_SECRET_ACCESS_KEY is not set, but S3_ACCESS_KEY_ID is")
elif [ -z "${S3_ACCESS_KEY_ID-}" ] && [ -n "${S3_SECRET_ACCESS_KEY-}" ]; then
    problems+=("S3_ACCESS_KEY_ID is not set, but S3_SECRET_ACCESS_KEY is; to use S3 by a role, unset S3_SECRET_ACCESS_KEY")
fi
if [ ${#problems[@]} -gt 0 ]; then
    printf '%s\n' "${problems[@]}" "docs/kubernetes.md shows how to set them." >&2
    exit 1
fi

store migrations confab_migrate "$MIGRATE_DB_PASSWORD"
store auth-store confab_auth "$AUTH_DB_PASSWORD"
store room-store confab_room "$ROOM_DB_PASSWORD"
store message-store confab_message "$MESSAGE_DB_PASSWORD"
store file-store confab_file "$FILE_DB_PASSWORD"
secret bus url "$REDIS_URL"
secret cluster-key key "$CONFAB_CLUSTER_KEY"
secret signing-key key.pem "$CONFAB_SIGNING_KEY"
if [ -n "${S3_ACCESS_KEY_ID-}" ]; then
    secret objects access-key-id "$S3_ACCESS_KEY_ID" secret-access-key "$S3_SECRET_ACCESS_KEY"
fi
