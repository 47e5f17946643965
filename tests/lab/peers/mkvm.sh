#!/bin/bash
# mkvm.sh SUITE: from the tree of mkroot.sh a bootable VM peer: kernel, a small initramfs (busybox, virtio_blk,
# overlay) and one read-only ext4 image, shared by any number of VMs (changes go to a tmpfs). The disk is not
# compressed: without KVM the guest would pay for that at every boot.
. "$(dirname "$0")/lib.sh"
suite=${1:-trixie}
if [ "${2:-}" = --if-missing ] && [ -e "$CACHE/vm-$suite/.done" ] && [ -e "$CACHE/root-$suite/usr/sbin/ipsec" ]; then exit 0; fi
root=$(root_of "$suite")
"$HERE/mklibreswan.sh" "$suite"
image=$CACHE/vm-$suite
need mke2fs=e2fsprogs cpio=cpio busybox=busybox-static xz=xz-utils qemu-system-x86_64=qemu-system-x86
mkdir -p "$image"
kernel=$(basename "$(find "$root/lib/modules" -mindepth 1 -maxdepth 1 | head -1)")
cp "$root/boot/vmlinuz-$kernel" "$image/vmlinuz"
install -m755 "$HERE/vm-init.sh" "$root/sbin/peer-init"
tree=$WORK/initramfs
mkdir -p "$tree"/{bin,m,proc,sys,dev,lo,up,new}
cp "$(command -v busybox)" "$tree/bin/busybox"

# Modules in the order of their dependencies; what is built in is simply absent.
modules=()
add_module() {
  local line module
  line=$(grep -E "(^|/)$1\.ko(\.xz)?:" "$root/lib/modules/$kernel/modules.dep" || true)
  [ -n "$line" ] || return 0
  for module in $(echo "${line#*:}" | tr ' ' '\n' | tac) "${line%%:*}"; do
    case " ${modules[*]-} " in *" $module "*) ;; *) modules+=("$module") ;; esac
  done
}
for module in virtio_pci virtio_blk ext4 overlay; do add_module $module; done
number=0
for module in "${modules[@]}"; do
  number=$((number + 1))
  target=$tree/m/$(printf %02d $number)-$(basename "${module%.xz}")
  case $module in
    *.xz) xz -dc "$root/lib/modules/$kernel/$module" >"$target" ;;
    *) cp "$root/lib/modules/$kernel/$module" "$target" ;;
  esac
done
cat >"$tree/init" <<'X'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for m in /m/*.ko; do $b insmod $m; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do $b usleep 50000; n=$((n+1)); done
$b mount -t ext4 -o ro,noload /dev/vda /lo
$b mount -t tmpfs -o size=75% t /up; $b mkdir /up/u /up/w
$b mount -t overlay -o lowerdir=/lo,upperdir=/up/u,workdir=/up/w o /new
for d in proc sys dev; do $b mount --move /$d /new/$d; done
exec $b switch_root /new /sbin/peer-init
X
chmod +x "$tree/init"
(cd "$tree" && find . | cpio -o -H newc --quiet) >"$image/initramfs"
size_mb=$(($(du -sm "$root" | cut -f1) * 11 / 10 + 100))
rm -f "$image/disk.ext4"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$image/disk.ext4" "${size_mb}M" >/dev/null
touch "$image/.done"
say "VM image with Linux $kernel in ${SECONDS} s"
