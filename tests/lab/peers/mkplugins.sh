#!/bin/bash
# mkplugins.sh SUITE: builds strongSwan's load-tester, which Debian does not ship, from the suite's own source package,
# and puts it into its tree. The compiler is this machine's: the plugin needs nothing newer than its libc.
. "$(dirname "$0")/lib.sh"
suite=${1:?suite}
plugins=$(root_of "$suite")/usr/lib/ipsec/plugins
[ ! -e "$plugins/libstrongswan-load-tester.so" ] || exit 0
need gcc=gcc make=make dpkg-source=dpkg-dev /usr/include/openssl/ssl.h=libssl-dev /usr/include/gmp.h=libgmp-dev \
  pkg-config=pkg-config
say "building strongSwan's load-tester (once, some minutes)"
build=$WORK/build
mkdir -p "$build/lists/partial"
chmod 755 "$WORK" "$build"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >"$build/sources"
apt_get() {
  apt-get -qq -o Dir::State::Lists="$build/lists" -o Dir::Etc::SourceList="$build/sources" \
    -o Dir::Etc::SourceParts=/dev/null -o Acquire::Check-Valid-Until=false "$@"
}
# step NAME COMMAND…: the end of its output is shown only where it fails.
step() {
  local log=$WORK/$1.log
  shift
  "$@" >"$log" 2>&1 || { tail "$log" >&2 && exit 1; }
}
cd "$build"
step lists apt_get update
step source apt_get source --download-only strongswan
step unpack dpkg-source -x ./*.dsc source
cd source
# --enable-mediation changes the layout of structs: as the package has it.
mediation=()
! grep -q -- --enable-mediation debian/rules || mediation=(--enable-mediation)
step configure nice -n 19 ./configure --quiet --disable-defaults --prefix=/usr --sysconfdir=/etc --libdir=/usr/lib \
  --libexecdir=/usr/lib --with-capabilities=no --enable-charon --enable-ikev1 --enable-ikev2 "${mediation[@]}" \
  --enable-openssl --enable-nonce --enable-random --enable-kdf --enable-pem --enable-x509 --enable-load-tester \
  --enable-kernel-netlink --enable-socket-default
step make nice -n 19 make -s -j2 -C src/libcharon/plugins/load_tester
install -m644 src/libcharon/plugins/load_tester/.libs/libstrongswan-load-tester.so "$plugins/"
say "built in $SECONDS s"
