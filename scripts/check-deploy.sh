#!/usr/bin/env bash
# Lints the images, docker-compose.yml and the scripts. tests/tests/compose.rs checks that they agree with our programs;
# the end-to-end tests run with the load balancer's configuration.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-checks.sh
PATH=$PWD/.tools/checks/bin:$PATH

hadolint deploy/Dockerfile
checkov --file deploy/Dockerfile --framework dockerfile --skip-download --quiet --compact
shellcheck scripts/*.sh
check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml

# Compose accepts the file with newly generated secrets, and rejects it if any one of them is missing.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts/compose-env.sh "$work/env"
if docker compose version > /dev/null 2>&1; then
    compose=(docker compose)
else
    # The older docker-compose, which needs no container engine for `config`.
    scripts/ensure-packages.sh docker-compose:docker-compose
    compose=(docker-compose)
fi
config() {
    env -i PATH="$PATH" HOME="$work" "${compose[@]}" --env-file "$1" config --quiet
}
config "$work/env"
sed -n 's/=.*//p' "$work/env" > "$work/secrets"
while read -r secret; do
    grep -v "^$secret=" "$work/env" > "$work/without"
    if config "$work/without" 2> "$work/said"; then
        echo "compose accepts docker-compose.yml without $secret" >&2
        exit 1
    fi
    grep -q 'scripts/compose-env.sh makes it' "$work/said" || { cat "$work/said"; exit 1; }
done < "$work/secrets"
echo "The images and docker-compose.yml pass all checks."
