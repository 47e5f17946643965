#!/bin/bash
# mklibreswan.sh SUITE: puts libreswan into the tree of a Debian suite, beside strongSwan. Their packages exclude each
# other, their files do not: libreswan and what it depends on are unpacked there, without their scripts.
. "$(dirname "$0")/lib.sh"
suite=${1:?suite}
root=$(root_of "$suite")
[ ! -e "$root/usr/sbin/ipsec" ] || exit 0
say "unpacking libreswan (once)"
suite_index deb "$suite"
# The tree's own list of packages says what is missing; nothing is installed or removed by this.
step download apt_get -o Dir::State::status="$root/var/lib/dpkg/status" --download-only --no-install-recommends \
  --yes install libreswan
for package in "$WORK"/apt/archives/*.deb; do
  # Unpacked as it is, a package would put a folder in the place of the tree's link /lib.
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
done
chroot "$root" ldconfig
chroot "$root" ipsec --version >&2
say "unpacked in $SECONDS s"
