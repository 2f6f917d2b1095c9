#!/bin/sh
# Runs every test, cheapest first, and stops at the first failure. `make check` has installed what they need.
# A check that can't run here says so and why; nothing is left out silently.
set -eu
jobs=${JOBS:-2}
python=.venv/bin/python
start=$(date +%s)

step() { echo "== $1 ($(($(date +%s) - start)) s)"; }
build() { # build FOLDER TARGET...
    folder=$1
    shift
    MAKEFLAGS='' cmake --build "$folder" -j "$jobs" --target "$@" -- --no-print-directory -s
}
unit() { # unit PRESET FOLDER CTEST_OPTIONS...
    preset=$1 folder=$2
    shift 2
    cmake --preset "$preset" >/dev/null
    build "$folder" mlxbench unit_tests
    ctest --test-dir "$folder" --output-on-failure -j "$jobs" "$@"
}

step "layout and layers"
git ls-files -co --exclude-standard 'src/*.[ch]' 'src/*.[ch]pp' 'tests/*.[ch]' 'tests/*.[ch]pp' | xargs .venv/bin/clang-format --dry-run -Werror
$python scripts/check_layers.py

step "unit tests"
unit tests build

step "unit tests, address and undefined-behaviour sanitizers"
unit asan build-asan
echo "not run with them: test_cuda_kernels, test_cuda_steps, whose emulated threads swap stacks under the sanitizers"

step "tests with threads, thread sanitizer"
if printf 'int main(void) { return 0; }\n' | cc -x c -fsanitize=thread -o build/tsan_probe - 2>/dev/null &&
    build/tsan_probe 2>/dev/null; then
    unit tsan build-tsan -R 'pool|engine|generate' -E engines_agree
    echo "not run with it: test_engines_agree, as MLX itself is not built with it"
else
    echo "not run: a program built with the thread sanitizer does not start on this system"
fi

step "ARM kernels, emulated"
if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null &&
    [ -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ]; then
    cmake --preset aarch64 >/dev/null
    build build-aarch64 all
    ctest --test-dir build-aarch64 --output-on-failure -j "$jobs"
else
    echo "not run: needs aarch64-linux-gnu-gcc, its C library and qemu-aarch64"
fi

step "clang's warnings"
if command -v clang >/dev/null; then
    cmake --preset clang >/dev/null
    build build-clang mlxbench unit_tests
else
    echo "not run: clang is not installed"
fi

step "fuzzing, a minute for each parser"
if printf 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }\n' |
    clang -x c -fsanitize=fuzzer -o build/fuzz_probe - 2>/dev/null; then
    cmake --preset fuzz >/dev/null
    build build-fuzz all
    sh tests/fuzz/run.sh
else
    echo "not run: needs clang and its fuzzing library"
fi

step "the demo model"
$python scripts/get_model.py "$DEMO" || echo "tests with the demo model will be skipped"

step "command line under the sanitizers"
MLXBENCH=build-asan/mlxbench $python -m pytest -q -rs tests/cli

step "all other tests"
$python -m pytest -q -rs tests
