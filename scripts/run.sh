#!/bin/sh
# Measures the demo model (or MODEL) and prints the table; the rows go to results/, too.
# usage: run.sh DEMO_MODEL_FILE FALLBACK_MODEL MLXBENCH_OPTIONS...
set -eu
demo=$1 fallback=$2
shift 2
if [ -n "${MODEL:-}" ]; then
    model=$MODEL
elif [ -f "$demo" ] || ${PYTHON:-python3} scripts/get_model.py "$demo"; then
    model=$demo
else
    echo "mlxbench: measuring random weights instead: $fallback" >&2
    model=$fallback
fi
results=results/$(date +%Y%m%d-%H%M%S)
mkdir -p results
build/mlxbench --model "$model" "$@" -o md -o "csv:$results.csv" -o "json:$results.json"
echo "mlxbench: the same rows are in $results.csv and $results.json"
