#!/bin/bash
# PID 1 of the VM peer: bring the machine up, then run the commands that come over virtio-serial
# (vm.py), one at a time.  Request: "ID TIMEOUT base64(command)"; answer: "ID STATUS base64(output)".
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t tmpfs t /run; mount -t tmpfs t /tmp; mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts p /dev/pts; mount -t tmpfs t /dev/shm; ln -sfn /proc/self/fd /dev/fd
read -r -a arguments </proc/cmdline
for a in "${arguments[@]}"; do case $a in peer.name=*) hostname "${a#*=}" ;; esac; done
ip link set lo up
modprobe virtio_net; modprobe virtio_console 2>/dev/null
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
for _ in $(seq 100); do p=$(ls /dev/vport*p1 2>/dev/null) && break; sleep .05; done
exec 3<>"$p"
echo "0 0 $(cut -d' ' -f1 /proc/uptime | base64 -w0)" >&3
while :; do   # a read fails whenever no client is connected
  read -r id t cmd <&3 || { sleep .05; continue; }
  [ "$cmd" != poweroff ] || break
  o=$(echo "$cmd" | base64 -d | setsid timeout -k 2 "$t" bash 2>&1 3>&- | base64 -w0; exit "${PIPESTATUS[2]}")
  echo "$id $? $o" >&3
done
echo o >/proc/sysrq-trigger; sleep 10
