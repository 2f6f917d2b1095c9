#!/bin/sh
# test.sh WHEEL: installs it into an empty environment and measures there; with the engine mlx, if
# the wheel has it.
set -eu
wheel=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
${PYTHON:-python3} -m venv "$folder/empty"
pip() { "$folder/empty/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
bench() { # bench HOW ARGUMENT...: a table with a speed, or an end
    how=$1
    shift
    start=$(date +%s)
    (cd / && "$@" --model synthetic:tiny-llama-13m-4bit --prompt-tokens random -o md >"$folder/table.txt") || { cat "$folder/table.txt" && exit 1; }
    grep -q '[0-9]\.[0-9]' "$folder/table.txt"
    echo "wheels: $how gives a table in $(($(date +%s) - start)) s"
}

pip install --no-deps "$wheel"
bench "mlxbench in an empty environment" "$folder/empty/bin/mlxbench" --engine cpu
bench "python -m mlxbench" "$folder/empty/bin/python" -m mlxbench --engine cpu
if [ -e "$(echo "$folder"/empty/lib/python*/site-packages/mlxbench/lib/mlxbench/mlxbench-mlx.so)" ]; then
    # without MLX: one line that says so, no crash
    status=0
    "$folder/empty/bin/mlxbench" --engine mlx --model synthetic:tiny-llama-13m-4bit --prompt-tokens random \
        >/dev/null 2>"$folder/without.txt" || status=$?
    if [ $status != 1 ] || [ "$(grep -c . "$folder/without.txt")" != 1 ] || ! grep -q 'engine mlx: libmlx' "$folder/without.txt"; then
        cat "$folder/without.txt" >&2
        echo "wheels: the engine mlx without MLX ended with $status" >&2
        exit 1
    fi
    mlx=$(sed -n 's/^set(MLX_VERSION \(.*\))/\1/p' cmake/mlx.cmake)
    pip install "mlx-cpu==$mlx"
    bench "the engine mlx beside MLX's own wheel" "$folder/empty/bin/mlxbench" --engine mlx -np 8 -n 4
fi
[ "$(ls "$folder"/empty/lib/python*/site-packages/mlxbench-*.dist-info/licenses | wc -l)" = 4 ]
