#!/bin/sh
# Measures the demo model (or MODEL) and prints the table; the rows go to results/, too.
# usage: DEMO=FILE [MODEL=NAME] run.sh MLXBENCH_OPTIONS...
set -eu
if [ -n "${MODEL:-}" ]; then
    model=$MODEL
elif [ -f "$DEMO" ] || ${PYTHON:-python3} scripts/get_model.py "$DEMO"; then
    model=$DEMO
else
    model=synthetic:llama-3.2-1b-4bit
    echo "mlxbench: measuring random weights instead: $model" >&2
fi
results=results/$(date +%Y%m%d-%H%M%S)
mkdir -p results
echo "mlxbench: measuring: build/mlxbench --model $model $*"
build/mlxbench --model "$model" "$@" -o md -o "csv:$results.csv" -o "json:$results.json"
echo "mlxbench: the same rows are in $results.csv and $results.json"
