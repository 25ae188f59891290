#!/usr/bin/env bash
# Fuzzes every parser of bytes from clients and from the bus, each for MINUTES (10); `scripts/fuzz.sh packet hint` fuzzes only
# these two. A finding is stored in fuzz/artifacts/, and the run fails. `make test` replays fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-cargo-tool.sh cargo-fuzz 0.13.1
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
for target in "${targets[@]}"; do
    echo "fuzzing $target for ${MINUTES:-10} minutes"
    found=$(mktemp -d)
    # New inputs are not added to the corpus, which stays small. Without a sanitizer a stable compiler is enough; the code forbids
    # `unsafe`, so a fault is a panic, an overflow, or too much memory or time.
    PATH=".tools/bin:$PATH" cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time=$((${MINUTES:-10} * 60)) -max_len=8192 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 -verbosity=0
    rm -r "$found"
done
