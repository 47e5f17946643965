#!/usr/bin/env python3
"""Boot and drive VM peers made by mkvm.sh (qemu, no KVM needed).

  vm.py start SOCK IMAGEDIR [--mem MB] [--cpus N] [--nic TAP ...]   boot; prints the PID when the guest is up
  vm.py exec SOCK [--timeout S] COMMAND...                          run a shell command in the guest
  vm.py put SOCK FILE GUESTPATH / vm.py get SOCK GUESTPATH FILE     copy a file
  vm.py stop SOCK                                                   power off

SOCK is a path for the control socket (SOCK.log is the console, SOCK.pid the PID).  TAPs must exist already,
in the namespace this runs in (`ip netns exec NS vm.py start ...`; later calls may come from anywhere).
"""

import argparse, base64, os, random, socket, subprocess, sys, time

# QEMU 7.2's TCG gets the flags of CMPXCHG16B wrong now and then (the guest kernel dies of a double fault
# in __kmalloc), so hide that instruction from the guest, and 5-level paging, which only costs time.
CPU = "max,cx16=off,la57=off"


def connect(path, wait):
    end = time.time() + wait
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(path)
            return s
        except OSError:
            s.close()
            if time.time() > end:
                raise
            time.sleep(0.05)


def line(s, buf, deadline):
    while b"\n" not in buf:
        s.settimeout(max(0.01, deadline - time.time()))
        d = s.recv(65536)
        if not d:
            raise EOFError("guest gone")
        buf += d
    i = buf.index(b"\n")
    l = bytes(buf[:i])
    del buf[: i + 1]
    return l.split()


def call(path, cmd, timeout=60):
    s = connect(path, 5)
    ident = b"%d" % random.randrange(1 << 40)
    s.sendall(ident + b" %d " % timeout + base64.b64encode(cmd.encode()) + b"\n")
    buf = bytearray()
    end = time.time() + timeout + 10
    while True:
        f = line(s, buf, end)
        if f and f[0] == ident:
            return int(f[1]), base64.b64decode(f[2]) if len(f) > 2 else b""


def start(a):
    t = time.time()
    cmd = [
        "qemu-system-x86_64",
        "-M",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        CPU,
        "-m",
        str(a.mem),
        "-smp",
        str(a.cpus),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        f"file:{a.sock}.log",
        "-kernel",
        f"{a.image}/vmlinuz",
        "-initrd",
        f"{a.image}/initramfs",
        "-append",
        f"console=ttyS0 quiet mitigations=off nokaslr peer.name={os.path.basename(a.sock)}",
        "-drive",
        f"if=none,id=d,file={a.image}/disk.ext4,format=raw,readonly=on,file.locking=off",
        "-device",
        "virtio-blk-pci,drive=d",
        "-device",
        "virtio-serial-pci",
        "-chardev",
        f"socket,id=c,path={a.sock},server=on,wait=off",
        "-device",
        "virtserialport,chardev=c,name=peer",
    ]
    for i, n in enumerate(a.nic):
        cmd += [
            "-netdev",
            f"tap,id=n{i},ifname={n},script=no,downscript=no,vhost=off",
            "-device",
            f"virtio-net-pci,netdev=n{i},mac=52:54:00:%02x:%02x:%02x"
            % (os.getpid() >> 8 & 255, os.getpid() & 255, i),
        ]
    p = subprocess.Popen(
        cmd,
        stdin=subprocess.DEVNULL,
        stdout=open(a.sock + ".qemu", "w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    open(a.sock + ".pid", "w").write(str(p.pid))
    s = connect(a.sock, 5)
    buf = bytearray()
    try:
        f = line(s, buf, time.time() + 90)
    except Exception as e:
        p.kill()
        sys.exit(
            f"no answer from the guest: {e!r}\n"
            + open(a.sock + ".log", errors="replace").read()[-2000:]
            + open(a.sock + ".qemu").read()
        )
    print(
        f"{p.pid} up after {time.time() - t:.1f}s (guest uptime {base64.b64decode(f[2]).decode().strip()}s)"
    )


ap = argparse.ArgumentParser()
sub = ap.add_subparsers(dest="op", required=True)
p = sub.add_parser("start")
p.add_argument("sock")
p.add_argument("image")
p.add_argument("--mem", type=int, default=512)
p.add_argument("--cpus", type=int, default=1)
p.add_argument("--nic", action="append", default=[])
p = sub.add_parser("exec")
p.add_argument("sock")
p.add_argument("--timeout", type=int, default=60)
p.add_argument("cmd", nargs="+")
p = sub.add_parser("put")
p.add_argument("sock")
p.add_argument("src")
p.add_argument("dst")
p = sub.add_parser("get")
p.add_argument("sock")
p.add_argument("src")
p.add_argument("dst")
p = sub.add_parser("stop")
p.add_argument("sock")
a = ap.parse_args()
if a.op == "start":
    start(a)
elif a.op == "exec":
    rc, out = call(a.sock, " ".join(a.cmd), a.timeout)
    sys.stdout.buffer.write(out)
    sys.exit(rc)
elif a.op == "put":
    d = base64.b64encode(open(a.src, "rb").read()).decode()
    rc, out = call(a.sock, f"mkdir -p $(dirname {a.dst}); base64 -d >{a.dst} <<'EOF'\n{d}\nEOF\n")
    sys.stdout.buffer.write(out)
    sys.exit(rc)
elif a.op == "get":
    rc, out = call(a.sock, f"cat {a.src}")
    open(a.dst, "wb").write(out)
    sys.exit(rc)
else:
    pid = int(open(a.sock + ".pid").read())
    try:
        connect(a.sock, 1).sendall(b"0 0 poweroff\n")
    except Exception:
        pass
    for _ in range(50):
        st = f"/proc/{pid}/stat"
        if not os.path.exists(st) or open(st).read().split()[2] == "Z":
            sys.exit(0)
        time.sleep(0.1)
    os.kill(pid, 9)
