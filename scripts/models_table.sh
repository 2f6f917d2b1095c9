#!/bin/sh
# Writes the table of docs/models.md anew from the program's registry.
set -eu
cd "$(dirname "$0")/.."
table=$(build/mlxbench models --markdown)
sed -i '/^| /,$d' docs/models.md
printf '%s\n' "$table" >>docs/models.md
