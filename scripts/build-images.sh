#!/usr/bin/env bash
# Builds and tests the image of every program. The images have the names in docker-compose.yml, with the tag VERSION
# (dev).
set -euo pipefail
cd "$(dirname "$0")/.."

for engine in docker podman none; do
    if "$engine" info > /dev/null 2>&1; then break; fi
done
if [ "$engine" = none ]; then
    echo "No container engine (docker or podman) runs on this machine; cannot build or test images." >&2
    echo "scripts/check-deploy.sh runs the checks that need no container engine." >&2
    exit 1
fi

# Podman's own format has no health check.
export BUILDAH_FORMAT=docker
tag=${VERSION:-dev}
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
images=()
for target in confab gateway auth room message file; do
    image=confab-$target:$tag
    [ "$target" != confab ] || image=confab:$tag
    "$engine" build --file deploy/Dockerfile --target "$target" --tag "$image" \
        --build-arg VERSION="$tag" --build-arg REVISION="$revision" .
    images+=("$image")
done

# The same restrictions as in docker-compose.yml.
confined=(--read-only --cap-drop ALL --security-opt no-new-privileges)
for image in "${images[@]}"; do
    "$engine" run --rm "${confined[@]}" "$image" --version
    user=$("$engine" image inspect --format '{{.Config.User}}' "$image")
    [ "$user" = 65532:65532 ] || { echo "$image runs as $user"; exit 1; }
    if "$engine" run --rm "${confined[@]}" "$image" healthcheck 2> /dev/null; then
        echo "$image reports healthy although the program does not run"
        exit 1
    fi
done

container=$("$engine" run --detach "${confined[@]}" --publish 127.0.0.1::8080 "confab:$tag")
trap '"$engine" rm --force --volumes "$container" > /dev/null' EXIT
for _ in $(seq 100); do
    if "$engine" exec "$container" confab healthcheck 2> /dev/null; then break; fi
    sleep 0.1
done
"$engine" exec "$container" confab healthcheck
address=$("$engine" port "$container" 8080/tcp | head -n 1)
curl --silent --show-error --fail --max-time 10 --output /dev/null "http://$address/api/auth/signup" \
    --header 'Content-Type: application/json' --data '{"username":"ada","password":"correct horse battery"}'
"$engine" stop -t 40 "$container" > /dev/null
status=$("$engine" inspect --format '{{.State.ExitCode}}' "$container")
[ "$status" = 0 ] || { "$engine" logs "$container"; echo "confab exited with status $status"; exit 1; }
echo "All images are built. confab runs on a read-only file system and without capabilities."
