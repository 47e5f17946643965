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
suite_index deb-src "$suite"
mkdir "$WORK/build"
cd "$WORK/build"
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
