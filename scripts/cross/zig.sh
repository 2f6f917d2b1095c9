#!/bin/bash
# zig.sh ROLE TARGET ARGUMENT...: zig as the compiler that CMake expects. ROLE is cc, c++, ar or
# ranlib. build.sh writes a small program for each role and target, which calls this one.
set -eu
role=$1 target=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/build-cross
export ZIG_GLOBAL_CACHE_DIR=$here/zig-cache ZIG_LOCAL_CACHE_DIR=$here/zig-cache
zig() { exec "$here/python/bin/python" -m ziglang "$@"; }
case $role in ar | ranlib) zig "$role" "$@" ;; esac

# The oldest system that a program runs on, and the processor that code is for where no option says
# more.
case $target in
macos-arm64) triple=aarch64-macos.14.0 cpu=apple_m1 ;;
macos-x64) triple=x86_64-macos.13.0 cpu=x86_64_v2 ;;
linux-x64) triple=x86_64-linux-gnu.2.28 cpu=x86_64 ;;
linux-arm64) triple=aarch64-linux-gnu.2.28 cpu=generic ;;
*) echo "zig.sh: no target $target" >&2 && exit 2 ;;
esac

links=yes arguments=()
for a in "$@"; do
    case $a in
    -c | -E | -S | -M | -MM) links=no arguments+=("$a") ;;
    -march=armv8.2-a*) arguments+=("-mcpu=$cpu${a#-march=armv8.2-a}") ;; # zig names a processor, not a version
    -bundle) arguments+=(-dynamiclib) ;; # zig 0.17.1 crashes on it; dlopen takes either
    *) arguments+=("$a") ;;
    esac
done

# C++ for Macs uses the system's libc++, as MLX does: one of our own would have other exception
# types, which a `catch` does not see. So its headers get Apple's marks of what is in which system,
# and a stub of the library is linked, which has what MLX's own binaries import from it.
if [ "$role" = c++ ] && [ $links = yes ]; then
    role=cc arguments+=("$here/libc++.1.tbd")
elif [ "$role" = c++ ]; then
    arguments=(-U_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS -D_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS=1
        -U_LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS -U_LIBCXXABI_DISABLE_VISIBILITY_ANNOTATIONS "${arguments[@]}")
fi
zig "$role" -target "$triple" "${arguments[@]}"
