#!/bin/bash
# mkroot.sh SUITE: a tree of a Debian suite with strongSwan and a kernel, for use as a chroot in a network
# namespace and as the disk of the VM peer (mkvm.sh). trixie has strongSwan 6.0.1 (raw ESP in user space).
. "$(dirname "$0")/lib.sh"
suite=${1:?suite}
root=$CACHE/root-$suite
need debootstrap=debootstrap
rm -rf "$root" "$root.tmp"
mkdir -p "$CACHE"
say "making a Debian $suite tree with strongSwan (once, about a minute)"
packages=iproute2,kmod,procps,netbase,iputils-ping,tcpdump,nftables,ethtool,python3-minimal,linux-image-cloud-amd64
packages+=,charon-systemd,strongswan-swanctl,libcharon-extra-plugins,libcharon-extauth-plugins
packages+=,libstrongswan-extra-plugins,libstrongswan-standard-plugins
debootstrap --variant=minbase --include="$packages" "$suite" "$root.tmp" "$(mirror)" >"$WORK/log" 2>&1 ||
  { tail "$WORK/log" >&2 && exit 1; }
rm -rf "$root.tmp"/var/cache/apt/archives "$root.tmp"/usr/share/{doc,man,locale,info}/*
mv "$root.tmp" "$root"
date -u +%F >"$root/.done"
say "$(du -sh "$root" | cut -f1) in $SECONDS s: strongSwan $(chroot "$root" swanctl --version 2>/dev/null | head -1)"
