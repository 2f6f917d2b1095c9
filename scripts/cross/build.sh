#!/bin/sh
# build.sh TARGET...: builds mlxbench for other systems in build-cross/TARGET and checks what came
# out. Targets: macos-arm64 (with the engine mlx), macos-x64, linux-x64, linux-arm64 (glibc 2.28;
# with the engine mlx where there is GNU's C++ compiler for ARM: MLX's Linux library is made with
# its C++ library, which zig does not have).
set -eu
jobs=${JOBS:-2}
here=build-cross
cd "$(dirname "$0")/../.."
sh scripts/cross/setup.sh "$@"

configure() { # configure TARGET FOLDER SOURCE OPTION...: quiet, with what went wrong when something does
    target=$1 folder=$2 source=$3
    shift 3
    cmake -S "$source" -B "$folder" --toolchain "$PWD/cmake/cross/zig.cmake" -DMLXBENCH_TARGET="$target" \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER_LAUNCHER= -DCMAKE_CXX_COMPILER_LAUNCHER= \
        "$@" >"$folder.log" 2>&1 || fail "$folder.log"
}
build() { # build FOLDER ARGUMENT...
    folder=$1
    shift
    MAKEFLAGS='' cmake --build "$folder" -j "$jobs" "$@" >"$folder.log" 2>&1 || fail "$folder.log"
}
fail() {
    tail -n 30 "$1" >&2
    echo "cross: failed; all of it is in $1" >&2
    exit 1
}

library() { # library TARGET NAME OPTION...: by its own CMakeLists.txt, static
    target=$1 name=$2
    shift 2
    configure "$target" "$here/$target/$name" "$here/sources/$name" -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DCMAKE_INSTALL_PREFIX="$PWD/$here/$target/prefix" \
        -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_POLICY_VERSION_MINIMUM=3.5 "$@"
    build "$here/$target/$name" --target install
}
libraries() { # libraries TARGET
    [ ! -e "$here/$1/prefix/complete" ] || [ ! -e "$here/$1/prefix/include/curl" ] || return 0
    library "$1" pcre2 -DPCRE2_SUPPORT_JIT=ON -DPCRE2_BUILD_TESTS=OFF -DPCRE2_BUILD_PCRE2GREP=OFF
    library "$1" utf8proc
    library "$1" cjson -DENABLE_CJSON_TEST=OFF -DENABLE_CJSON_UTILS=OFF -DBUILD_SHARED_AND_STATIC_LIBS=OFF
    # libcurl is opened at run time, so its header is all that is needed; it is the same for every
    # system.
    header=$(echo '#include <curl/curl.h>' | cc -E -x c - | sed -n 's/^# 1 "\(.*\)\/curl\.h".*/\1/p' | head -1)
    cp -r "$header" "$here/$1/prefix/include/"
    touch "$here/$1/prefix/complete"
}

program() { # program TARGET
    target=$1
    mkdir -p "$here/$target/bin"
    for role in cc c++ ar ranlib; do
        printf '#!/bin/sh\nexec bash "%s/scripts/cross/zig.sh" %s %s "$@"\n' "$PWD" $role "$target" >"$here/$target/bin/$role"
        chmod +x "$here/$target/bin/$role"
    done
    libraries "$target"
    mlx=$PWD/$here/mlx-$(sed -n 's/^set(MLX_VERSION \(.*\))/\1/p' cmake/mlx.cmake)-$target/mlx
    [ -d "$mlx" ] || mlx=none
    [ "$target" != macos-arm64 ] || "$here/python/bin/python" scripts/cross/macho.py --stub "$here/libc++.1.tbd" "$mlx"/lib/*.dylib
    configure "$target" "$here/$target/build" . -DMLX_ROOT="$mlx" -DMLXBENCH_WERROR=ON \
        -DMLXBENCH_MLX_RPATH=../../../mlx/lib -DCURL_INCLUDE_FOLDER="$PWD/$here/$target/prefix/include"
    build "$here/$target/build" --target mlxbench
    sh scripts/cross/check.sh "$target"
}

for target in "$@"; do
    start=$(date +%s)
    program "$target"
    echo "cross: $target: $(($(date +%s) - start)) s"
done
