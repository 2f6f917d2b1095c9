#!/bin/sh
# setup.sh TARGET...: fetches into build-cross/ what cross-compiling needs: zig, the sources of
# three libraries, MLX. Everything is kept; a second call fetches nothing.
set -eu
python=${PYTHON:-python3}
here=build-cross
mkdir -p "$here"

# ---- the compiler, in a Python environment of its own ----
if ! cmp -s scripts/cross/requirements.txt "$here/python/requirements.txt"; then
    echo "cross: getting the compiler (zig, 100 MB)"
    $python -m venv --clear "$here/python"
    "$here/python/bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/cross/requirements.txt
    cp scripts/cross/requirements.txt "$here/python/requirements.txt"
fi

# ---- the libraries' sources, of the versions that this Debian or Ubuntu has ----
# Through apt with lists of its own, so that the system's stay as they are; apt checks what it gets.
get_sources() {
    state=$(pwd)/$here/apt
    rm -rf "$state"
    mkdir -p "$state/lists/partial" "$state/sources.d"
    for list in /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$list" ] || sed 's/^Types:.*/Types: deb-src/' "$list" >"$state/sources.d/$(basename "$list")"
    done
    [ ! -e /etc/apt/sources.list ] || sed 's/^deb-src .*//; s/^deb /deb-src /' /etc/apt/sources.list >"$state/sources.d/system.list"
    set -- -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/sources.d" -o Dir::State::lists="$state/lists" \
        -o Acquire::Languages=none -o APT::Sandbox::User=
    apt-get "$@" update -qq
    (cd "$here/sources.new" && apt-get "$@" source --tar-only --download-only -qq pcre2 utf8proc cjson)
}
if [ ! -d "$here/sources" ]; then
    command -v apt-get >/dev/null || {
        echo "cross: the sources of PCRE2, utf8proc and cJSON come from Debian or Ubuntu, by apt-get source" >&2
        exit 1
    }
    echo "cross: getting the sources of PCRE2, utf8proc and cJSON"
    rm -rf "$here/sources.new"
    mkdir -p "$here/sources.new"
    get_sources
    for archive in "$here"/sources.new/*.tar.*; do
        name=$(basename "$archive" | sed 's/_.*//')
        mkdir "$here/sources.new/$name"
        tar -xf "$archive" -C "$here/sources.new/$name" --strip-components=1
    done
    mv "$here/sources.new" "$here/sources"
fi

# ---- MLX's wheels: headers, and a library to link against ----
version=$(sed -n 's/^set(MLX_VERSION \(.*\))/\1/p' cmake/mlx.cmake)
get_mlx() { # get_mlx TARGET PLATFORM PACKAGE
    [ ! -d "$here/mlx-$version-$1" ] || return 0
    echo "cross: getting MLX $version for $1"
    rm -rf "$here/mlx.new"
    "$here/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform "$2" --ignore-requires-python --target "$here/mlx.new" "$3==$version"
    mv "$here/mlx.new" "$here/mlx-$version-$1"
}
for target in "$@"; do
    case $target in
    macos-arm64) get_mlx $target macosx_14_0_arm64 mlx-metal ;;
    linux-arm64) ! command -v aarch64-linux-gnu-g++ >/dev/null || get_mlx $target manylinux_2_35_aarch64 mlx-cpu ;;
    esac
done
