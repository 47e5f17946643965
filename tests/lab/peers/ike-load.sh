#!/bin/bash
# ike-load.sh COUNT: strongSwan's load-tester sets up COUNT IKE SAs with a Child SA each between two of its daemons in
# network namespaces of their own: PSK, X25519, AES-256-GCM, fake kernel, so no ESP at all. Prints one line of JSON:
# set-ups, seconds from the first to the last, and CPU seconds of both daemons in that time.
. "$(dirname "$0")/lib.sh"
count=${1:?count}
root=$(root_of bookworm)
bash "$HERE/mkplugins.sh" bookworm >&2
need ip=iproute2
tag=load$$
pids=()
cleanup() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  ip netns del "${tag}r" 2>/dev/null || true
  ip netns del "${tag}i" 2>/dev/null || true
  rm -rf "$WORK"
}
trap cleanup EXIT

for end in r i; do
  ip netns add "$tag$end"
  ip -n "$tag$end" link set lo up
  mkdir -p "$WORK/$end/swanctl"
done
ip link add eth0 netns "${tag}r" type veth peer name eth0 netns "${tag}i"
ip -n "${tag}r" address add 192.0.2.2/24 dev eth0
ip -n "${tag}i" address add 192.0.2.1/24 dev eth0
ip -n "${tag}r" link set eth0 up
ip -n "${tag}i" link set eth0 up
: >"$WORK/empty.conf"
: >"$WORK/i/swanctl/swanctl.conf"
cat >"$WORK/r/swanctl/swanctl.conf" <<'CONF'
connections { load { version = 2
  local_addrs = 192.0.2.2
  unique = never
  proposals = aes256gcm16-prfsha384-x25519
  local { auth = psk
    id = gw.test }
  remote { auth = psk }
  children { load { local_ts = 192.0.2.2/32
    remote_ts = 0.0.0.0/0
    esp_proposals = aes256gcm16 } } } }
CONF

# start END SETTINGS: one daemon; SETTINGS are lines for its load-tester plugin.
start() {
  local folder=$WORK/$1
  cat >"$folder/strongswan.conf" <<CONF
charon-systemd {
  load = random nonce openssl kdf load-tester kernel-netlink socket-default vici
  threads = 8
  cookie_threshold = 100000
  cookie_threshold_ip = 100000
  block_threshold = 0
  init_limit_half_open = 0
  filelog { l { path = $folder/charon.log
    default = 0 } }
  plugins {
    vici { socket = unix://$folder/vici }
    load-tester { enable = yes
      fake_kernel = yes
      initiator_auth = psk
      responder_auth = psk
      preshared_key = load-psk
      responder_id = gw.test
      initiator_id = c%d-r%d.test
      proposal = aes256gcm16-prfsha384-x25519
      esp = aes256gcm16
      initiator_tsi = 10.9.0.0/16
      delay = 0
      $2 } } }
CONF
  STRONGSWAN_CONF=$folder/strongswan.conf bash "$HERE/inroot.sh" "$tag$1" "$root" "$WORK" charon-systemd \
    >"$folder/out.log" 2>&1 </dev/null &
  pids+=($!)
  for _ in $(seq 100); do
    [ -S "$folder/vici" ] && return 0
    sleep .1
  done
  die "$1: no daemon after 10 s: $(tail -1 "$folder/out.log")"
}

swanctl() {
  SWANCTL_DIR=$WORK/r/swanctl STRONGSWAN_CONF=$WORK/empty.conf \
    bash "$HERE/inroot.sh" "${tag}r" "$root" "$WORK" swanctl "$@" --uri "unix://$WORK/r/vici"
}

established() {
  swanctl --stats 2>/dev/null |
    sed -n 's/^IKE_SAs: \([0-9]*\) total, \([0-9]*\) half.*/\1 \2/p' | awk '{ print $1 - $2 }'
}

# User and system time of both daemons, in clock ticks.
ticks() {
  local pid sum=0 fields
  for pid in "${pids[@]}"; do
    read -ra fields <"/proc/$pid/stat"
    sum=$((sum + fields[13] + fields[14]))
  done
  echo "$sum"
}

# The initiator begins as soon as it runs: what it takes to start is counted with it.
start r "initiators = 0"
# The socket is there a moment before it is listened on.
for _ in $(seq 50); do
  ! swanctl --stats >/dev/null 2>&1 || break
  sleep .1
done
swanctl --load-all >"$WORK/load.log" 2>&1 || die "$(head -2 "$WORK/load.log" "$WORK/r/out.log")"
before=$(ticks)
begun=$(date +%s%N)
start i "responder = 192.0.2.2
      initiators = 10
      iterations = $(((count + 9) / 10))"
done=0
for _ in $(seq 300); do
  done=$(established)
  [ "${done:-0}" -lt "$count" ] || break
  sleep .1
done
ended=$(date +%s%N)
after=$(ticks)
awk -v n="${done:-0}" -v ns=$((ended - begun)) -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN {
  printf "{\"set_ups\":%d,\"seconds\":%.3f,\"cpu_seconds\":%.3f}\n", n, ns / 1e9, ticks / hz }'
