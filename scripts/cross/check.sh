#!/bin/sh
# check.sh TARGET: what can be known here of a program for another system: its format, what it
# loads, which symbols it lacks, and, where this machine or an emulator can run it, that it runs
# with the processor's instructions.
set -eu
target=$1
python=build-cross/python/bin/python
folder=build-cross/$target/build
export MLXBENCH_SHARE="$PWD/share" # its presets: the program is not in its place

smoke() { # smoke COMMAND...: hwinfo names the kernels; `scalar` means that the processor's instructions were not found
    engine=$("$@" "$folder/mlxbench" hwinfo | sed -n 's/^engine cpu: *//p')
    case $engine in
    *", scalar"* | "") echo "cross: $target runs the kernels \"$engine\"" >&2 && exit 1 ;;
    esac
    "$@" "$folder/mlxbench" --engine cpu --model synthetic:tiny-llama-13m-4bit --prompt-tokens random -np 8 -n 2 --repeats 1 \
        -o csv >/dev/null
    echo "cross: $target runs here ($*): engine cpu $engine"
}

case $target in
macos-arm64)
    mlx=$(ls -d build-cross/mlx-*-macos-arm64/mlx)
    $python scripts/cross/macho.py --check 14.0 "$folder/mlxbench"
    $python scripts/cross/macho.py --check 14.0 --program "$folder/mlxbench" --library "$mlx/lib/libmlx.dylib" \
        --rpath "@loader_path/../../../mlx/lib" "$folder/mlxbench-mlx.dylib"
    ;;
macos-x64) $python scripts/cross/macho.py --check 13.0 "$folder/mlxbench" ;;
linux-*)
    # the newest version of a glibc symbol must be one that 2.28 has
    newest=$($python scripts/cross/glibc_version.py "$folder/mlxbench")
    echo "cross: $target needs glibc $newest"
    case $target-$(uname -m) in
    linux-x64-x86_64 | linux-arm64-aarch64) smoke env ;;
    linux-arm64-*)
        if command -v qemu-aarch64 >/dev/null && [ -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ]; then
            smoke qemu-aarch64 -L /usr/aarch64-linux-gnu
        else
            echo "cross: $target was not run: needs qemu-aarch64 and libc6-arm64-cross"
        fi
        ;;
    *) echo "cross: $target was not run: no emulator for it is used" ;;
    esac
    ;;
esac
