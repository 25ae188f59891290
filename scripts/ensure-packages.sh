#!/usr/bin/env bash
# Installs Debian packages if their contents are missing: ensure-packages.sh WHAT:PACKAGE… WHAT is a command, a path
# (possibly with a glob), or venv, the Python module. Does not start the installed servers.
set -euo pipefail

present() {
    case $1 in
        /*) compgen -G "$1" > /dev/null ;;
        venv) python3 -c 'import ensurepip, venv' 2> /dev/null ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" > /dev/null ;;
    esac
}

missing=()
for pair in "$@"; do
    present "${pair%%:*}" || missing+=("${pair#*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "missing packages; install them as root: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
fi

# While these files exist, packages start no service and Debian creates no database. Previous files are restored
# afterwards.
guard=/usr/sbin/policy-rc.d
database=/etc/postgresql-common/createcluster.d/confab.conf
cleanup() {
    rm -f "$guard" "$database"
    [ ! -e "$guard.confab" ] || mv "$guard.confab" "$guard"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
if [ -e "$guard" ] && [ ! -e "$guard.confab" ]; then mv "$guard" "$guard.confab"; fi
printf '#!/bin/sh\nexit 101\n' > "$guard"
chmod 755 "$guard"
mkdir -p "${database%/*}"
echo 'create_main_cluster = false' > "$database"

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq < /dev/null
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" < /dev/null
