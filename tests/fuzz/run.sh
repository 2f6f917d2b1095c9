#!/bin/sh
# Runs every fuzz target of build-fuzz for SECONDS_EACH (60) seconds, from its files in tests/fuzz/NAME.
# What it makes up is thrown away; an input that breaks the target stays as build-fuzz/crash-*, which repeats it.
set -eu
cd "$(dirname "$0")/../.."
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
for target in build-fuzz/fuzz_*; do
    [ -f "$target" ] && [ -x "$target" ] || continue
    name=${target##*/fuzz_}
    mkdir "$new/$name"
    echo "$name: ${SECONDS_EACH:-60} s"
    "$target" -max_total_time="${SECONDS_EACH:-60}" -timeout=20 -rss_limit_mb=2048 -artifact_prefix=build-fuzz/ \
        "$new/$name" "tests/fuzz/$name" >"$new/log" 2>&1 || { tail -40 "$new/log"; exit 1; }
    tail -1 "$new/log"
done
