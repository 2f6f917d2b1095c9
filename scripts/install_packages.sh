#!/bin/sh
# Installs the system packages that are missing for `make` (build), `make run` (run), `make check`
# (check) or `make bench` (bench), with one command and one question for a password, and says which.
# Looks for the things themselves, not for package names, so any system that has them is left alone.
# NO_INSTALL=1: prints the command and stops instead.
set -eu
what=$1
python=${PYTHON:-python3}
apt="" brew=""

lacks() { # lacks APT_PACKAGES BREW_PACKAGES
    apt="$apt${1:+ $1}"
    brew="$brew${2:+ $2}"
}
has() { command -v "$1" >/dev/null 2>&1; }
has_library() { pkg-config --exists "$1" 2>/dev/null; }
has_header() { printf '#include <%s>\n' "$1" | ${CC:-cc} -x c -fsyntax-only - 2>/dev/null; }
compiles() { # a C compiler and the C library's headers
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' | ${CC:-cc} -x c -fsyntax-only - 2>/dev/null
}
compiles_cxx() { # C++20
    printf '#include <span>\nint main() { return 0; }\n' | ${CXX:-c++} -std=c++20 -x c++ -fsyntax-only - 2>/dev/null
}

compiles || lacks "gcc libc6-dev" ""
has cmake || lacks cmake cmake
has pkg-config || lacks pkg-config pkgconf
has_library libpcre2-8 || lacks libpcre2-dev pcre2
has_library libutf8proc || lacks libutf8proc-dev utf8proc
has_library libcjson || lacks libcjson-dev cjson
has_header curl/curl.h || lacks libcurl4-openssl-dev ""
if [ "$what" != build ]; then
    # pip fetches MLX, the demo model and what the tests need.
    $python -m pip --version >/dev/null 2>&1 || lacks python3-pip ""
fi
if [ "$what" = check ]; then
    has_library cmocka || lacks libcmocka-dev cmocka
    has openssl || lacks openssl "" # a certificate for the tests of downloads
    # for the ARM kernels' tests, which are left out elsewhere
    [ "$(uname -m)" != x86_64 ] || ! has apt-get || { has aarch64-linux-gnu-gcc && has qemu-aarch64; } ||
        lacks "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" ""
    # for the completions' tests, which are left out elsewhere
    ! has apt-get || { has zsh && has fish; } || lacks "zsh fish" ""
    # for the second compiler's warnings and the fuzzers
    ! has apt-get || echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' |
        clang -x c -fsanitize=fuzzer -o /dev/null - 2>/dev/null || lacks "clang libclang-rt-dev" ""
fi
if [ "$what" = check ] || [ "$what" = bench ]; then
    $python -c 'import venv, ensurepip' 2>/dev/null || lacks python3-venv ""
fi
# The engine mlx, and llama.cpp in bench, need C++. The program is built without it, so alone it is
# no reason to stop.
optional=""
if ! compiles_cxx; then
    [ -n "$apt$brew" ] || [ "$what" = bench ] || optional=1
    [ "$what" = build ] && [ -n "$optional" ] || lacks g++ ""
fi

if [ "$(uname)" = Darwin ]; then
    compiles || { echo "mlxbench: no C compiler; run: xcode-select --install" >&2; exit 1; }
    [ -n "$brew" ] || exit 0
    command="brew install$brew"
    run() { $command; }
    possible() { has brew; }
else
    [ -n "$apt" ] || exit 0
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo "
    command="${sudo}apt-get install -y --no-install-recommends$apt"
    run() { # sudo forgets the environment, and asks once for one command
        ${sudo}env DEBIAN_FRONTEND=noninteractive sh -c \
            "apt-get -qq update && apt-get -qq install -y --no-install-recommends$apt"
    }
    possible() { has apt-get && { [ -z "$sudo" ] || has sudo; }; }
fi

if [ -n "${NO_INSTALL:-}" ]; then
    echo "mlxbench: packages are missing. Install them with" >&2
    echo "    $command" >&2
    exit 1
fi
if ! possible; then
    [ -z "$optional" ] || { echo "mlxbench: there is no compiler of C++20 (package g++)" >&2; exit 0; }
    echo "mlxbench: packages are missing and can't be installed from here. Their names on Debian and Ubuntu:" >&2
    echo "   $apt" >&2
    exit 1
fi
echo "mlxbench: installing what is missing: $command"
log=${LOG:-build/log.txt}
mkdir -p "$(dirname "$log")"
if ! run >>"$log" 2>&1; then
    [ -z "$optional" ] || { echo "mlxbench: g++ could not be installed" >&2; exit 0; }
    tail -n 5 "$log" >&2
    echo "mlxbench: the packages could not be installed; all that was said is in $log" >&2
    exit 1
fi
