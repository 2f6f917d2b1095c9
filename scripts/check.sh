#!/bin/sh
# Runs the tests, cheapest first, and stops at the first failure. `make check` has installed what
# they need. QUICK=1: a build, the unit tests, the command line and one round of the oracle. FULL=1:
# also other compilers, bare systems and long fuzzing. A check that can't run here says so and why;
# nothing is left out silently.
set -eu
jobs=${JOBS:-2}
python=.venv/bin/python
start=$(date +%s)

# What tests leave behind, also when they fail or are interrupted, goes with this folder.
mkdir -p build
TMPDIR=$(mktemp -d "$PWD/build/tmp-XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM

step() { # step WHAT USUALLY
    now=$(($(date +%s) - start))
    printf '== %s (usually %s on two cores; %d:%02d so far)\n' "$1" "$2" $((now / 60)) $((now % 60))
}
configure() { # configure PRESET
    cmake --preset "$1" >"$TMPDIR/configure.txt" 2>&1 || { cat "$TMPDIR/configure.txt"; return 1; }
    sed -n 's/^-- \(.*left out.*\|.*not tested.*\)/\1/p' "$TMPDIR/configure.txt"
}
build() { # build FOLDER TARGET...
    folder=$1
    shift
    MAKEFLAGS='' cmake --build "$folder" -j "$jobs" --target "$@" -- --no-print-directory -s >"$folder/log.txt" 2>&1 || {
        grep -E -A5 '(error|Error|undefined)' "$folder/log.txt" | head -60
        echo "the build failed: all of its output is in $folder/log.txt"
        return 1
    }
}
unit() { # unit PRESET FOLDER CTEST_OPTIONS...
    preset=$1 folder=$2
    shift 2
    configure "$preset"
    build "$folder" mlxbench unit_tests
    tests "$folder" "$@"
}
tests() { # tests FOLDER CTEST_OPTIONS...
    folder=$1
    shift
    ctest --test-dir "$folder" --output-on-failure -j "$jobs" "$@" >"$folder/ctest.txt" 2>&1 || {
        grep -v ' Passed ' "$folder/ctest.txt"
        return 1
    }
    grep 'tests passed' "$folder/ctest.txt"
}
# Two tests at a time, as most of their time is spent in one thread.
pytest() { $python -m pytest -q -rs -p no:cacheprovider -n 2 "$@"; }

step "layout and layers" "some seconds"
git ls-files -co --exclude-standard 'src/*.[ch]' 'src/*.[ch]pp' 'tests/*.[ch]' 'tests/*.[ch]pp' | xargs .venv/bin/clang-format --dry-run -Werror
$python scripts/check_layers.py

step "unit tests" "4 min"
unit tests build

step "the demo model" "some seconds"
$python scripts/get_model.py "$DEMO" || echo "tests with the demo model will be skipped"

if [ -n "${QUICK:-}" ]; then
    step "command line, and one round of the oracle" "3 min"
    pytest tests/cli tests/test_*.py tests/oracle/test_tokenizer.py tests/oracle/test_smollm2.py
    step "done; the rest runs without QUICK=1" "nothing"
    exit 0
fi

step "unit tests, address and undefined-behaviour sanitizers" "5 min"
unit asan build-asan
echo "not run with them: test_cuda_kernels, test_cuda_steps, whose emulated threads swap stacks under the sanitizers"

step "tests with threads, thread sanitizer" "2 min"
if printf 'int main(void) { return 0; }\n' | cc -x c -fsanitize=thread -o build/tsan_probe - 2>/dev/null &&
    build/tsan_probe 2>/dev/null; then
    unit tsan build-tsan -R 'pool|engine|generate' -E engines_agree
    echo "not run with it: test_engines_agree, as MLX itself is not built with it"
else
    echo "not run: a program built with the thread sanitizer does not start on this system"
fi

step "ARM kernels, emulated" "3 min"
if command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null &&
    [ -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ]; then
    configure aarch64
    build build-aarch64 all
    tests build-aarch64
else
    echo "not run: needs aarch64-linux-gnu-gcc, its C library and qemu-aarch64"
fi

step "clang's warnings" "4 min"
if command -v clang >/dev/null; then
    configure clang
    build build-clang mlxbench unit_tests
else
    echo "not run: clang is not installed"
fi

step "cross-compiling for $([ -n "${FULL:-}" ] && echo "all targets" || echo "macOS on Apple processors")" "4 min"
if command -v apt-get >/dev/null; then
    sh scripts/cross/build.sh macos-arm64 $([ -z "${FULL:-}" ] || echo macos-x64 linux-x64 linux-arm64)
else
    echo "not run: the libraries' sources come from Debian or Ubuntu, by apt-get source"
fi

step "the wheel in an empty environment" "4 min"
case $(uname -s)-$(uname -m)-$(command -v apt-get) in
Linux-x86_64-?*) sh scripts/wheels.sh linux-x64 ;;
Linux-aarch64-?*) sh scripts/wheels.sh linux-arm64 ;;
*) echo "not run: wheels are made on Debian or Ubuntu, as cross-compiling is" ;;
esac

step "fuzzing, $([ -n "${FULL:-}" ] && echo an hour || echo a minute) for each parser" "3 min, or hours"
if printf 'int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }
' |
    clang -x c -fsanitize=fuzzer -o build/fuzz_probe - 2>/dev/null; then
    configure fuzz
    build build-fuzz all
    sh tests/fuzz/run.sh $([ -z "${FULL:-}" ] || echo 3600)
else
    echo "not run: needs clang and its fuzzing library"
fi

step "command line and downloads under the sanitizers" "4 min"
MLXBENCH=build-asan/mlxbench pytest tests/cli tests/hub

step "all other tests" "6 min"
pytest --ignore=tests/hub tests

if [ -n "${FULL:-}" ]; then
    step "all wheels, and a Debian package" "10 min"
    sh scripts/wheels.sh
    if command -v lintian >/dev/null && command -v dh >/dev/null; then
        sh scripts/deb.sh
    else
        echo "no Debian package: needs dpkg-dev, debhelper and lintian"
    fi
    step "other compilers" "40 min"
    sh scripts/compilers.sh
    step "first contact: bare systems" "20 min"
    sh scripts/first_contact.sh
fi
step "done" "nothing"
