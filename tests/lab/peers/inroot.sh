#!/bin/bash
# inroot.sh NETNS ROOT FOLDER COMMAND…: runs COMMAND in a network namespace and in a root tree, with FOLDER, /dev and
# /proc visible at the same paths. `ip netns exec` gives each call a mount namespace of its own: the mounts go with it.
set -eu
netns=$1 root=$2 folder=$3
shift 3
if [ "$root" = / ]; then exec ip netns exec "$netns" "$@"; fi
# shellcheck disable=SC2016
exec ip netns exec "$netns" sh -ec '
  root=$1 folder=$2; shift 2
  mkdir -p "$root$folder"
  mount --bind "$folder" "$root$folder"
  mount --rbind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount -t tmpfs run "$root/run"
  exec chroot "$root" "$@"' - "$root" "$folder" "$@"
