#!/bin/sh
# deb.sh: a Debian package of the program in dist/, and what lintian says of it (an error ends
# this). Needs dpkg-buildpackage, debhelper and lintian. DEB_BUILD_OPTIONS=nocheck leaves the unit
# tests out.
set -eu
cd "$(dirname "$0")/.."
for tool in dpkg-buildpackage dh lintian; do
    command -v $tool >/dev/null || { echo "deb: $tool is missing; on Debian and Ubuntu: apt-get install dpkg-dev debhelper lintian" >&2 && exit 1; }
done
folder=build-deb/mlxbench
rm -rf build-deb
mkdir -p $folder dist
# only what belongs to the project, as a release's archive would have it
git ls-files -z | xargs -0 tar -cf - | tar -xf - -C $folder
cp -R packaging/debian $folder/debian
(cd $folder && dpkg-buildpackage --build=binary --no-sign --jobs="${JOBS:-2}" >../log.txt 2>&1) || { tail -n 40 build-deb/log.txt && exit 1; }
lintian --fail-on error build-deb/mlxbench_*.deb
cp build-deb/mlxbench_*.deb dist/
ls -l dist/*.deb | awk '{ printf "deb: %s, %.2f MB\n", $9, $5 / 1e6 }'
