#!/bin/sh
# `make run` as a new user meets it: on a bare Debian 12 and 13 with git, make and python3, as root
# (gcc), as a user with sudo (clang) and as one without (told what to install); then an installation
# that works after the checkout has moved away. Each system is made below build-systems/ and
# removed; what was printed stays there, SUITE-CASE.log. Needs root and debootstrap. Part of `make
# check FULL=1`.
# usage: first_contact.sh [SUITE/CASE...]      bookworm/root trixie/sudo trixie/none
set -eu
cd "$(dirname "$0")/.."
. scripts/debian.sh
MLX_SITE=""
export MLX_SITE
systems=build-systems
debian_possible || exit 0
mkdir -p $systems

as() { # as WHO COMMAND: in the checkout
    debian_run "$root" su "$1" -c "cd '/src' && $2"
}
installed() {
    as root 'make install PREFIX="/opt/a place, with a comma" && mv "$PWD" /moved'
    debian_run "$root" sh -c 'for engine in cpu mlx; do
        "/opt/a place, with a comma/bin/mlxbench" generate --model synthetic:tiny-llama-13m-4bit --prompt-ids 1,2,3 \
            --ids --max-tokens 2 --engine $engine; done'
}
root() {
    as root "make run"
    installed
}
sudo() {
    debian_run "$root" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install sudo clang \
        >/dev/null 2>&1
    echo "tester ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/tester"
    as tester "CC=clang CXX=clang++ make run"
}
none() {
    if as tester "make run" || as tester "NO_INSTALL=1 make run" >"$root/said" 2>&1; then return 1; fi
    cat "$root/said"
    debian_run "$root" sh -c "DEBIAN_FRONTEND=noninteractive $(sed -n 's/^ *sudo \(apt-get install.*\)/\1/p' "$root/said")" \
        >/dev/null 2>&1
    as tester "make run"
}

failed=""
for pair in "${@:-bookworm/root bookworm/sudo bookworm/none trixie/root trixie/sudo trixie/none}"; do
    for pair in $pair; do
        suite=${pair%/*} case=${pair#*/}
        debian_make $systems/$suite-bare "$suite" git make python3
        root=$systems/$suite-$case log=$systems/$suite-$case.log
        rm -rf "$root"
        cp -a $systems/$suite-bare "$root"
        debian_copy "$root"
        debian_run "$root" useradd -m tester
        debian_run "$root" chown -R tester /src
        set +e # which a subshell in a condition would inherit
        (
            set -e
            $case
        ) >"$log" 2>&1
        status=$?
        set -e
        if [ $status = 0 ]; then
            echo "$pair: $(wc -l <"$log") lines; a table: $(grep -c '^| models/' "$log") rows"
        else
            echo "$pair: failed"
            tail -n 20 "$log"
            failed=1
        fi
        rm -rf "$root"
    done
done
[ -z "$failed" ]
