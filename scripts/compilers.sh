#!/bin/sh
# Builds all of it, with warnings as errors, and runs the unit tests with each compiler of Debian 12
# and 13, in small systems below build-systems/ (a few GB, kept). Needs root and debootstrap. Part
# of `make check FULL=1`.
# usage: compilers.sh [SUITE/COMPILER...]      bookworm/gcc-12 trixie/clang-19
set -eu
cd "$(dirname "$0")/.."
. scripts/debian.sh
all="bookworm/gcc-12 bookworm/clang-14 bookworm/clang-15 bookworm/clang-16
     trixie/gcc-12 trixie/gcc-13 trixie/gcc-14 trixie/clang-17 trixie/clang-18 trixie/clang-19"
jobs=${JOBS:-2}
systems=build-systems
MLX_SITE=$(dirname "$(.venv/bin/python -m mlx --cmake-dir)")
export MLX_SITE

debian_possible || exit 0
mkdir -p $systems
failed=""
for pair in ${*:-$all}; do
    suite=${pair%/*} compiler=${pair#*/}
    case $compiler in
        gcc-*) cxx=g++-${compiler#gcc-} ;;
        *) cxx=clang++-${compiler#clang-} ;;
    esac
    root=$systems/$suite
    debian_make $root $suite cmake make pkg-config libpcre2-dev libutf8proc-dev libcjson-dev libcurl4-openssl-dev libcmocka-dev \
        $(for other in $all; do case $other in
            $suite/gcc-*) echo g++-${other#*-} ;;
            $suite/*) echo ${other#*/} ;;
        esac; done)
    debian_copy $root
    log=$systems/$suite-$compiler.log
    if debian_run $root sh -euc '
        cd /src
        cmake --preset tests -B build-$1 -DCMAKE_C_COMPILER=$1 -DCMAKE_CXX_COMPILER=$2 -DMLX_ROOT=/mlx/mlx
        cmake --build build-$1 -j $3 --target mlxbench unit_tests -- --no-print-directory -s -k
        ctest --test-dir build-$1 -j $3 --output-on-failure' sh $compiler $cxx "$jobs" >$log 2>&1; then
        echo "$pair: built without a warning, unit tests pass"
    else
        echo "$pair: failed; the whole of it is in $log"
        grep -E 'error:|\*\*\*Failed|warning:' $log | head -10 || tail -10 $log
        failed=1
    fi
done
[ -z "$failed" ]
