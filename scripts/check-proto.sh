#!/usr/bin/env bash
# Checks the gRPC contract: every part has a comment, and callers built against the last release still work. At a
# release, `check-proto.sh release` stores the current contract for later comparisons.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-buf.sh
buf=.tools/bin/buf
released=proto/released.binpb

"$buf" format --diff --exit-code proto
"$buf" lint proto
"$buf" breaking proto --against "$released"
if [ "${1-}" = release ]; then
    "$buf" build proto --output "$released" --as-file-descriptor-set --exclude-source-info
    echo "$released now contains the current contract."
    exit 0
fi

# The check detects breaking changes: a removed field, method or enum value, a field with another type or number.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
breaks() { # FILE SED-SCRIPT COMPLAINT
    rm -rf "$work/proto"
    cp -r proto "$work/proto"
    sed -i -E "$2" "$work/proto/confab/$1"
    if "$buf" breaking "$work/proto" --against "$released" > "$work/said" 2>&1 || ! grep -q "$3" "$work/said"; then
        echo "the check does not detect that '$2' breaks the contract in $1:" >&2
        cat "$work/said" >&2
        exit 1
    fi
}
breaks message/v1/message.proto '/optional string client_message_id = 8;/d' 'Previously present field "8"'
breaks message/v1/message.proto 's/uint64 seq = 5;/string seq = 5;/' 'changed type from "uint64" to "string"'
breaks room/v1/room.proto '/rpc CheckAccess/d' 'Previously present RPC "CheckAccess"'
breaks room/v1/room.proto '/ROLE_ADMIN = 2;/d' 'Previously present enum value "2"'
breaks file/v1/file.proto 's/uint64 size = 3;/uint64 size = 11;/' 'Previously present field "3"'
# The check also detects parts without a comment.
sed -i '/^message Access {/,$ s|^  //.*||' "$work/proto/confab/room/v1/room.proto"
if "$buf" lint "$work/proto" > "$work/said" || ! grep -q 'Field "may_post" should have a non-empty comment' "$work/said"; then
    echo "the check does not detect a field without a comment" >&2
    exit 1
fi
echo "The gRPC contract is complete and compatible with the last release."
