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
