#!/usr/bin/env bash
# Makes the certificates with which programs authenticate each other over gRPC: make-certs.sh DIR [NAME]…
#
# DIR/gateway, DIR/auth and so on contain tls.crt, tls.key and ca.crt for CONFAB_TLS_CERT_FILE, CONFAB_TLS_KEY_FILE and
# CONFAB_TLS_CA_FILE, and DIR contains the certificate authority. A certificate has the DNS name gateway.confab,
# auth.confab and so on, and is valid for a year. Each NAME is another program. Run it at least every two months: it renews
# the certificates that expire within three months. Running programs use the new files within 10 s.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,8s/^# \?//p' "$0" >&2; exit 1; }
directory=$1
shift
day=86400
# The renewed authority has the same key, so that certificates issued before stay valid.
authority_days=3650 authority_renewal=$((2 * 365 * day))
program_days=365 program_renewal=$((90 * day))

# Only its owner can read DIR. The files in it are readable for the users of containers, in which they are mounted.
umask 077
mkdir -p "$directory"
cd "$directory"
umask 022

lasts() { # CERTIFICATE SECONDS
    [ -e "$1" ] && openssl x509 -in "$1" -noout -checkend "$2" > /dev/null
}
key() { # FILE MODE
    (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.new")
    chmod "$2" "$1.new"
}
# sign SECTION DAYS OPTION…: signs a request on standard input. The settings of the system's openssl.cnf do not apply.
sign() {
    openssl x509 -req -days "$2" -set_serial "0x$(openssl rand -hex 16)" -extfile extensions -extensions "$1" \
        "${@:3}" 2> said.new || { cat said.new >&2; return 1; }
}
is_current() { # NAME
    lasts "$1/tls.crt" "$program_renewal" && openssl verify -CAfile ca.crt "$1/tls.crt" > /dev/null 2>&1 &&
        [ "$(openssl x509 -in "$1/tls.crt" -noout -pubkey)" = "$(openssl pkey -in "$1/tls.key" -pubout 2> /dev/null)" ]
}
request() { # KEY NAME
    openssl req -new -config extensions -key "$1" -subj "/O=Confab/CN=$2"
}

trap 'rm -f extensions ./*.new ./*/*.new' EXIT
extensions() { # NAME
    printf '%s\n' '[req]' 'distinguished_name = subject' '[subject]' \
        '[authority]' 'basicConstraints = critical, CA:TRUE, pathlen:0' 'keyUsage = critical, keyCertSign, cRLSign' \
        'subjectKeyIdentifier = hash' \
        '[program]' 'basicConstraints = critical, CA:FALSE' 'keyUsage = critical, digitalSignature' \
        'extendedKeyUsage = serverAuth, clientAuth' 'subjectKeyIdentifier = hash' 'authorityKeyIdentifier = keyid' \
        "subjectAltName = DNS:$1.confab" > extensions
}

extensions authority
if [ ! -e ca.key ]; then
    key ca.key 600
    mv ca.key.new ca.key
    rm -f ca.crt
fi
if ! lasts ca.crt "$authority_renewal"; then
    request ca.key "certificate authority of programs" | sign authority "$authority_days" -signkey ca.key > ca.crt.new
    mv ca.crt.new ca.crt
    echo "made $directory/ca.crt"
fi
for name in gateway auth room message file "$@"; do
    [[ $name =~ ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ ]] || { echo "'$name' cannot be part of a DNS name" >&2; exit 1; }
    mkdir -p "$name"
    if ! is_current "$name"; then
        extensions "$name"
        key "$name/tls.key" 644
        request "$name/tls.key.new" "$name" | sign program "$program_days" -CA ca.crt -CAkey ca.key > "$name/tls.crt.new"
        # A program that reads the files between the two steps keeps its previous certificate until it reads again.
        mv "$name/tls.key.new" "$name/tls.key"
        mv "$name/tls.crt.new" "$name/tls.crt"
        echo "made $directory/$name/tls.crt"
    fi
    cmp -s ca.crt "$name/ca.crt" || { cp ca.crt "$name/ca.crt.new" && mv "$name/ca.crt.new" "$name/ca.crt"; }
done
