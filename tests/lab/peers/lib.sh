# shellcheck shell=bash
# Shared by the recipes of this folder, which build peers that we did not write.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Root trees and VM images, built once.
CACHE=${POLLUX_PEERS:-/var/cache/pollux-peers}
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
. "$HERE/../../../scripts/lib.sh"

# The archive that this machine's apt already uses, so that no host is named here.
mirror() {
  # shellcheck disable=SC2016 # apt's own variables
  apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 !~ /security|updates|backports/ && $1 ~ /\/debian\/?$/ { print $1; exit }'
}

# The tree of a Debian suite, made by mkroot.sh where it is not there yet.
root_of() {
  [ -e "$CACHE/root-$1/.done" ] || "$HERE/mkroot.sh" "$1" >&2
  echo "$CACHE/root-$1"
}

# step NAME COMMAND…: the end of its output is shown only where it fails.
step() {
  local log=$WORK/$1.log
  shift
  "$@" >"$log" 2>&1 || { tail "$log" >&2 && exit 1; }
}

# suite_index TYPE SUITE: reads the index of a Debian suite, of TYPE deb or deb-src, for apt_get below. What this machine's
# own apt knows is not touched.
suite_index() {
  mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/archives/partial"
  chmod 755 "$WORK" "$WORK/apt"
  echo "$1 [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $2 main" >"$WORK/apt/sources"
  step lists apt_get update
}
apt_get() {
  apt-get -qq -o Dir::State::Lists="$WORK/apt/lists" -o Dir::Etc::SourceList="$WORK/apt/sources" \
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Cache::Archives="$WORK/apt/archives" \
    -o Acquire::Check-Valid-Until=false "$@"
}
