# Small Debian systems in folders, for tests of other compilers and of first contact. Sourced by
# compilers.sh and first_contact.sh. Mounts are made in a namespace of their own, so nothing stays
# mounted whatever happens.

# Says why no system can be made here; true when one can.
debian_possible() {
    [ "$(id -u)" = 0 ] || { echo "not run: making a system needs root"; return 1; }
    for tool in debootstrap unshare chroot; do
        command -v $tool >/dev/null || { echo "not run: $tool is not installed"; return 1; }
    done
    unshare -m true 2>/dev/null || { echo "not run: no mount namespaces here"; return 1; }
}

# debian_make FOLDER SUITE PACKAGE...: makes the system, unless it is there. What apt says is in
# FOLDER.log.
debian_make() {
    folder=$1 suite=$2
    shift 2
    [ ! -e "$folder" ] || return 0
    rm -rf "$folder.part"
    mkdir -p "$folder.part"
    debootstrap --variant=minbase "$suite" "$folder.part" >"$folder.log" 2>&1 &&
        cp /etc/resolv.conf "$folder.part/etc/" &&
        debian_run "$folder.part" apt-get -qq update >>"$folder.log" 2>&1 &&
        debian_run "$folder.part" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >>"$folder.log" 2>&1 ||
        { tail -5 "$folder.log"; return 1; }
    mv "$folder.part" "$folder"
}

# debian_copy FOLDER: copies this checkout, as git would commit it, to /src of the system; what was
# built there stays.
debian_copy() {
    mkdir -p "$1/src"
    (cd "$1/src" && rm -rf src tests cmake share scripts) # files that are no more; the copies keep their times
    git ls-files -co --exclude-standard | tar -c -T - | tar -x -C "$1/src"
}

# debian_run FOLDER COMMAND...: runs it as root in the system. $MLX_SITE, a folder that has mlx/, is
# /mlx there.
debian_run() {
    [ -z "${PIP_CERT:-}" ] || cp "$PIP_CERT" "$1/etc/pip-cert.pem" # pip may have to trust somebody here
    env -u PIP_FIND_LINKS -u REQUESTS_CA_BUNDLE -u CURL_CA_BUNDLE TMPDIR=/tmp ${PIP_CERT:+PIP_CERT=/etc/pip-cert.pem} unshare -m sh -euc '
        root=$1
        shift
        if [ -n "${MLX_SITE:-}" ]; then
            mkdir -p "$root/mlx"
            mount --bind "$MLX_SITE" "$root/mlx"
        fi
        mount -t proc proc "$root/proc"
        mount --bind /dev "$root/dev"
        exec chroot "$root" "$@"' sh "$@"
}
