#!/bin/sh
# Runs every fuzz target of build-fuzz for SECONDS (60), from its files in tests/fuzz/NAME; as many
# at a time as there are cores.
# usage: run.sh [SECONDS]
# What it makes up is thrown away; an input that breaks the target stays as build-fuzz/NAME-crash-*,
# which repeats it.
set -eu
cd "$(dirname "$0")/../.."
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
one='
    seconds=$1 new=$2 name=${3##*/fuzz_}
    mkdir "$new/$name"
    if "$3" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -artifact_prefix="build-fuzz/$name-" \
        "$new/$name" "tests/fuzz/$name" >"build-fuzz/$name.log" 2>&1; then
        echo "$name: $(tail -n 1 "build-fuzz/$name.log")"
    else
        echo "$name: failed"
        tail -n 40 "build-fuzz/$name.log"
        exit 1
    fi'
for target in build-fuzz/fuzz_*; do
    [ ! -f "$target" ] || [ ! -x "$target" ] || echo "$target"
done | xargs -P "${JOBS:-2}" -I TARGET sh -c "$one" sh "${1:-60}" "$new" TARGET
