//! The guard at the exit: a table of frames over the egress program, then both layers on real interfaces.
//!
//! ```text
//!   private network namespace of the test's thread
//!   va 10.1.0.5, fd00:1::5 ── veth ── vb      guard on va, pairs 10.1.0.0/16 ↔ 10.2.0.0/16, fd00:1::/32 ↔ fd00:2::/32
//!    └ 10.2.0.9, fd00:2::9 and 198.51.100.9 are behind va by static neighbour entries
//! ```
//!
//! Needs root; without it each test says `skipped`.

#[path = "steer/frame.rs"]
#[expect(dead_code, reason = "the other tables use the rest")]
mod frame;
#[path = "steer/run_dir.rs"]
mod run_dir;

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use pollux_abi::IfIndex;
use pollux_ebpf::{Capacity, Exit, Guard, GuardCount, GuardLayer, GuardVerdict, IpNet, Role, Steering};

use crate::frame::{
    DEST_OPTIONS, ESP, FRAGMENT, HOP_BY_HOP, Header, ICMP, ICMPV6, QINQ, TCP, UDP, VLAN, esp, ip, ip_with,
    ip6_extended, tag, tcp, udp,
};
use crate::run_dir::RunDir;

/// `BPF_PROG_TEST_RUN` says that frames leave on `lo`.
const LO: IfIndex = IfIndex(1);
const HOST: IfIndex = IfIndex(77);
const NOWHERE: IfIndex = IfIndex(0);

const SITES: &[(&str, &str)] = &[("10.1.0.0/16", "10.2.0.0/16"), ("fd00:1::/32", "fd00:2::/32")];
const ALL: &[(&str, &str)] = &[("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0")];
const FULL_TUNNEL: &[(&str, &str)] = &[("10.1.0.0/16", "0.0.0.0/0")];
const GATEWAY: &[&str] = &["203.0.113.1", "10.1.0.1", "2001:db8:f::1", "fd00:1::1", "fe80::1"];

const VERDICTS_H: &str = include_str!("../bpf/guard_verdicts.h");
const GUARD_MD: &str = include_str!("../../docs/guard.md");

struct Rig {
    steering: Steering,
    guard: Guard,
    _run: RunDir,
}

impl Rig {
    fn new(pairs: &[(&str, &str)]) -> Option<Self> {
        let run = RunDir::new()?;
        let mut steering = Steering::open(&run.pins, Capacity::default()).expect("the program loads");
        let addresses: Vec<IpAddr> = GATEWAY.iter().map(|text| text.parse().expect("an address")).collect();
        steering.set_local_addrs(&addresses).expect("addresses");
        steering.set_protected(&prefixes(pairs)).expect("pairs");
        let mut guard = Guard::open(&steering).expect("the guard loads");
        guard.set_host_link(Some(HOST)).expect("a host link");
        Some(Self { steering, guard, _run: run })
    }

    fn judge(&mut self, frame: &[u8], came_in: IfIndex) -> Option<GuardVerdict> {
        let before = self.guard.counts().expect("counters");
        let dropped = self.guard.test_run(frame, came_in).expect("a frame of 14 octets or more");
        let after = self.guard.counts().expect("counters");
        let counted: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        let verdict = match counted[..] {
            [] => None,
            [(before, after)] => {
                assert_eq!((after.layer, after.packets), (GuardLayer::Egress, before.packets + 1));
                Some(after.verdict)
            }
            _ => panic!("{} counters moved", counted.len()),
        };
        assert_eq!(dropped, verdict.is_some_and(GuardVerdict::is_drop), "{verdict:?}");
        verdict
    }

    fn check(&mut self, rows: &[(&str, Vec<u8>, Option<GuardVerdict>)]) {
        for (description, frame, expected) in rows {
            assert_eq!(self.judge(frame, NOWHERE), *expected, "{description}");
        }
    }
}

fn prefixes(list: &[(&str, &str)]) -> Vec<(IpNet, IpNet)> {
    let parse = |prefix: &str| prefix.parse().expect("the table's prefix");
    list.iter().map(|(local, remote)| (parse(local), parse(remote))).collect()
}

const CLEAR: Option<GuardVerdict> = Some(GuardVerdict::DropClear);

#[test]
fn what_belongs_to_a_protected_pair_does_not_leave_in_clear() {
    let Some(mut rig) = Rig::new(SITES) else { return };
    let (a, b) = ("10.1.0.1", "10.2.0.10");
    let (a6, b6) = ("fd00:1::1", "fd00:2::10");
    let middle = Header { frag: 0x2001, ..Header::of(UDP) };
    let options = Header { ihl: 8, ..Header::of(UDP) };
    rig.check(&[
        ("UDP", ip(a, b, UDP, &udp(1, 2, b"x")), CLEAR),
        ("the gateway's own IKE port, without control's socket", ip(a, b, UDP, &udp(4500, 9, b"x")), CLEAR),
        ("IKE by its looks", ip(a, b, UDP, &udp(500, 500, &ike(28))), CLEAR),
        ("TCP", ip(a, b, TCP, &tcp(1, 22)), CLEAR),
        ("ESP of somebody else", ip(a, b, ESP, &esp(0xc000_0001)), CLEAR),
        ("ICMP", ip("10.1.9.9", b, ICMP, &[8, 0, 0, 0]), CLEAR),
        ("a fragment", ip_with(a, b, middle, b"abcdefgh"), CLEAR),
        ("IPv4 options", ip_with(a, b, options, &udp(1, 2, b"x")), CLEAR),
        ("IPv6", ip(a6, b6, UDP, &udp(4500, 9, b"x")), CLEAR),
        (
            "extension headers",
            ip6_extended(a6, b6, &[(HOP_BY_HOP, 8), (DEST_OPTIONS, 64)], UDP, &[0; 8]),
            CLEAR,
        ),
        ("an IPv6 fragment", ip6_extended(a6, b6, &[(FRAGMENT, 8)], UDP, &[0; 8]), CLEAR),
        ("a chain without end", ip6_extended(a6, b6, &[(DEST_OPTIONS, 8); 12], UDP, &[0; 8]), CLEAR),
        ("one VLAN tag", tag(&ip(a, b, UDP, &udp(1, 2, b"x")), &[VLAN]), CLEAR),
        ("four VLAN tags", tag(&ip(a, b, UDP, &udp(1, 2, b"x")), &[QINQ, VLAN, VLAN, VLAN]), CLEAR),
        (
            "five VLAN tags",
            tag(&ip(a, b, UDP, &udp(1, 2, b"x")), &[VLAN; 5]),
            Some(GuardVerdict::DropTagDepth),
        ),
        ("DHCP forwarded to a server there", ip("10.1.9.9", b, UDP, &udp(68, 67, b"x")), CLEAR),
        ("an echo with hop limit 255", ip_with(a6, b6, nd(), &[128, 0, 0, 0]), CLEAR),
    ]);
}

#[test]
fn what_belongs_to_no_protected_pair_is_not_even_counted() {
    let Some(mut rig) = Rig::new(SITES) else { return };
    rig.check(&[
        ("from outside the local prefix", ip("203.0.113.1", "10.2.0.10", UDP, &udp(1, 2, b"x")), None),
        ("to outside the remote prefix", ip("10.1.0.1", "198.51.100.9", UDP, &udp(1, 2, b"x")), None),
        ("the other direction", ip("10.2.0.10", "10.1.0.1", UDP, &udp(1, 2, b"x")), None),
        ("outer ESP", ip("203.0.113.1", "198.51.100.9", ESP, &esp(0xc000_0001)), None),
        ("ARP", frame::ether(frame::ARP, &[0; 28]), None),
        ("no IPv4 header", frame::ether(frame::IPV4, &[0x65; 20]), None),
    ]);
    let Some(mut rig) = Rig::new(&[]) else { return };
    rig.check(&[("nothing protected", ip("10.1.0.1", "10.2.0.10", UDP, &udp(1, 2, b"x")), None)]);
}

#[test]
fn the_named_exceptions_pass_and_nothing_beside_them() {
    let Some(mut rig) = Rig::new(ALL) else { return };
    let own = Some(GuardVerdict::PassOwn);
    let outside = "198.51.100.9";
    rig.check(&[
        ("the operator's SSH", ip("203.0.113.1", outside, TCP, &tcp(22, 1)), own),
        (
            "also from the inside address: 0.0.0.0/0 names nobody",
            ip("10.1.0.1", outside, TCP, &tcp(22, 1)),
            own,
        ),
        ("of another host", ip("203.0.113.2", outside, TCP, &tcp(22, 1)), CLEAR),
        ("multicast of another host", ip("10.1.0.10", "239.1.2.3", UDP, &udp(1, 2, b"x")), CLEAR),
        (
            "a DHCP client",
            ip("0.0.0.0", "255.255.255.255", UDP, &udp(68, 67, b"x")),
            Some(GuardVerdict::PassLink),
        ),
        ("no source, but a destination", ip("0.0.0.0", outside, UDP, &udp(68, 67, b"x")), CLEAR),
        (
            "duplicate address detection",
            ip_with("::", "ff02::1:ff00:1", nd(), &[135, 0, 0, 0]),
            Some(GuardVerdict::PassLink),
        ),
        (
            "neighbour discovery",
            ip_with("2001:db8:f::2", "2001:db8:f::3", nd(), &[136, 0, 0, 0]),
            Some(GuardVerdict::PassNd),
        ),
        (
            "neighbour discovery that was forwarded",
            ip_with("2001:db8:f::2", "2001:db8:f::3", Header::of(ICMPV6), &[136, 0, 0, 0]),
            CLEAR,
        ),
    ]);
    let Some(mut rig) = Rig::new(FULL_TUNNEL) else { return };
    rig.check(&[
        ("the gateway's inside address", ip("10.1.0.1", outside, ICMP, &[8, 0, 0, 0]), CLEAR),
        ("its outside address", ip("203.0.113.1", outside, ICMP, &[8, 0, 0, 0]), None),
        (
            "its DHCP client renews",
            ip("10.1.0.1", outside, UDP, &udp(68, 67, b"x")),
            Some(GuardVerdict::PassDhcp),
        ),
        (
            "its DHCP server answers",
            ip("10.1.0.1", "255.255.255.255", UDP, &udp(67, 68, b"x")),
            Some(GuardVerdict::PassDhcp),
        ),
        ("a host's DHCP client", ip("10.1.0.10", outside, UDP, &udp(68, 67, b"x")), CLEAR),
        (
            "to a LAN host, but not out of a lan port",
            ip("10.1.0.1", "10.1.0.10", UDP, &udp(1, 2, b"x")),
            CLEAR,
        ),
    ]);
    rig.steering.add_port(LO, Role::Lan).expect("a slot");
    let lan = Some(GuardVerdict::PassLan);
    rig.check(&[
        ("to a LAN host", ip("10.1.0.1", "10.1.0.10", UDP, &udp(1, 2, b"x")), lan),
        ("mDNS on the LAN", ip("10.1.0.1", "224.0.0.251", UDP, &udp(5353, 5353, b"x")), lan),
        ("a routable group", ip("10.1.0.1", "239.1.2.3", UDP, &udp(1, 2, b"x")), CLEAR),
        ("to elsewhere through the LAN", ip("10.1.0.1", outside, UDP, &udp(1, 2, b"x")), CLEAR),
    ]);
    let handed = ip("10.1.0.1", outside, UDP, &udp(1, 2, b"x"));
    assert_eq!(rig.judge(&handed, HOST), Some(GuardVerdict::PassWorker), "out of pollux0: a worker's");
    rig.guard.set_host_link(None).expect("no host link");
    assert_eq!(rig.judge(&handed, HOST), CLEAR, "no pollux0 any more");
}

#[test]
fn before_the_addresses_are_known_wide_selectors_do_not_lock_the_operator_out() {
    let Some(mut rig) = Rig::new(&[("0.0.0.0/0", "0.0.0.0/0"), ("10.1.0.0/16", "10.2.0.0/16")]) else {
        return;
    };
    rig.steering.set_local_addrs(&[]).expect("none");
    let ssh = ip("203.0.113.7", "198.51.100.9", TCP, &tcp(22, 1));
    let inside = ip("10.1.0.1", "198.51.100.9", TCP, &tcp(22, 1));
    rig.check(&[("not said so", ssh.clone(), CLEAR)]);
    rig.guard.set_addresses_known(false).expect("a flag");
    rig.check(&[
        ("may be the gateway's", ssh.clone(), Some(GuardVerdict::PassOwn)),
        ("an inside source", inside, CLEAR),
    ]);
    assert_eq!(rig.judge(&ssh, IfIndex(5)), CLEAR, "forwarded");
    rig.guard.set_addresses_known(true).expect("a flag");
    rig.check(&[("known again", ssh, CLEAR)]);
}

#[test]
fn every_verdict_of_the_header_stands_in_rust_and_in_the_documentation() {
    let c: Vec<String> = VERDICTS_H
        .lines()
        .filter_map(|line| line.trim().split_once(',').map(|(name, _)| name.to_lowercase()))
        .filter(|name| name.starts_with("guard_pass_") || name.starts_with("guard_drop_"))
        .map(|name| name.replace("_pass_", "_").replace("_drop_", "_"))
        .collect();
    let rust: Vec<String> = GuardVerdict::ALL.iter().map(|verdict| verdict.name().to_owned()).collect();
    assert_eq!(c, rust);
    let table: Vec<&str> = GUARD_MD.lines().filter(|line| line.starts_with("| `guard_")).collect();
    let rust: Vec<String> =
        GuardVerdict::ALL.iter().map(|verdict| format!("| `{verdict}` | {} |", verdict.text())).collect();
    assert_eq!(table, rust);
}

/// An IKE message of this length: version 2.0 and the length at their places.
fn ike(length: u8) -> Vec<u8> {
    let mut message = vec![7; 28];
    message[17] = 0x20;
    message[24..28].copy_from_slice(&[0, 0, 0, length]);
    message
}

fn nd() -> Header {
    Header { hop_limit: 255, ..Header::of(ICMPV6) }
}

/// The guard over [`SITES`] on `va`, with both layers.
fn guarding(run: &RunDir) -> (Steering, Guard) {
    let mut steering = Steering::open(&run.pins, Capacity::default()).expect("the program loads");
    steering.set_protected(&prefixes(SITES)).expect("pairs");
    let mut guard = Guard::open(&steering).expect("the guard loads");
    assert_eq!(guard.missing(), []);
    assert!(guard.attach_netfilter().expect("netfilter links"));
    guard.attach_egress(&[exit("va")]).expect("TCX links");
    assert_eq!(guard.missing(), []);
    (steering, guard)
}

fn exit(name: &str) -> Exit {
    let index = nix::net::if_::if_nametoindex(name).expect("an interface");
    Exit { ifindex: IfIndex(index), name: name.to_owned(), ethernet: true }
}

fn dropped(guard: &Guard, layer: GuardLayer) -> u64 {
    let fits = |count: &&GuardCount| count.layer == layer && count.verdict == GuardVerdict::DropClear;
    guard.counts().expect("counters").iter().filter(fits).map(|count| count.packets).sum()
}

#[test]
fn netfilter_refuses_what_a_socket_sends_whatever_its_port_or_device() {
    in_own_network(|run| {
        let (_steering, guard) = guarding(run);
        let mut refused = 0;
        for (from, to) in [("10.1.0.5", "10.2.0.9:9"), ("fd00:1::5", "[fd00:2::9]:9")] {
            for port in [0_u16, 500, 4500] {
                for device in [None, Some("va")] {
                    let socket =
                        UdpSocket::bind((from.parse::<IpAddr>().expect("ours"), port)).expect("binds");
                    if let Some(device) = device {
                        let device = std::ffi::OsString::from(device);
                        nix::sys::socket::setsockopt(
                            &socket,
                            nix::sys::socket::sockopt::BindToDevice,
                            &device,
                        )
                        .expect("root may");
                    }
                    let sent = socket.send_to(b"in clear", to);
                    assert_eq!(sent.expect_err("refused").kind(), ErrorKind::PermissionDenied);
                    refused += 1;
                }
            }
        }
        assert_eq!(dropped(&guard, GuardLayer::Netfilter), refused);
        let other = UdpSocket::bind("10.1.0.5:0").expect("binds");
        other.send_to(b"not protected", "198.51.100.9:9").expect("passes");
        other.send_to(b"to ourselves", "10.1.0.5:9").expect("passes on lo");
    });
}

#[test]
fn masquerading_does_not_hide_the_pair() {
    in_own_network(|run| {
        let (_steering, guard) = guarding(run);
        command("ip addr add 192.0.2.2/24 dev va");
        // What source NAT does as well, in a form that every kernel with nftables has.
        let rules = "table ip nat {\n chain early { type filter hook postrouting priority -2000;\n \
                     ip saddr 10.1.0.5 ip saddr set 192.0.2.2;\n }\n}\n";
        let file = run.path.join("rules.nft");
        std::fs::write(&file, rules).expect("a file");
        command(&format!("nft -f {}", file.display()));
        std::fs::remove_file(&file).expect("our file");
        let socket = UdpSocket::bind("10.1.0.5:0").expect("binds");
        assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_err());
        assert_eq!(dropped(&guard, GuardLayer::Netfilter), 1);
    });
}

#[test]
fn the_egress_layer_sees_packet_sockets() {
    in_own_network(|run| {
        let (_steering, guard) = guarding(run);
        let frame = ip("10.1.0.5", "10.2.0.9", UDP, &udp(1, 2, &[b'x'; 1400]));
        let hex = hex(&frame);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('va', 0))
for _ in range(3):
    try: s.send(bytes.fromhex('{hex}'))
    except OSError: pass"
        );
        assert!(Command::new("/usr/bin/python3").args(["-c", &script]).status().expect("python").success());
        assert_eq!(dropped(&guard, GuardLayer::Egress), 3);
    });
}

#[test]
fn the_guard_outlives_its_loader_and_is_taken_over() {
    in_own_network(|run| {
        drop(guarding(run));
        let socket = UdpSocket::bind("10.1.0.5:0").expect("binds");
        assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_err(), "without a process");
        for round in 0..10 {
            let (_steering, guard) = guarding(run);
            assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_err(), "round {round}");
            assert_eq!(dropped(&guard, GuardLayer::Netfilter), round + 2, "counted once each");
            guard.forget_others().expect("nothing else");
            let pins = std::fs::read_dir(run.pins.join("v2")).expect("pins").filter_map(Result::ok);
            let links =
                pins.filter(|pin| pin.file_name().to_str().is_some_and(|name| name.starts_with("link-")));
            assert_eq!(links.count(), 3, "two families and one interface");
        }
        Steering::remove_all(&run.pins).expect("removes");
        let opened = || socket.send_to(b"in clear", "10.2.0.9:9").is_ok();
        assert!((0..200).any(|_| opened() || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            false
        }));
    });
}

#[test]
fn what_others_detach_or_unpin_comes_back() {
    in_own_network(|run| {
        let (_steering, mut guard) = guarding(run);
        assert!(!guard.attach_netfilter().expect("links"), "nothing to do");
        assert_eq!(guard.attach_egress(&[exit("va")]).expect("links"), Vec::<String>::new());
        for pin in std::fs::read_dir(run.pins.join("v2")).expect("pins").filter_map(Result::ok) {
            if pin.file_name().to_str().is_some_and(|name| name.starts_with("link-")) {
                command(&format!("bpftool link detach pinned {}", pin.path().display()));
                std::fs::remove_file(pin.path()).expect("root may");
            }
        }
        let socket = UdpSocket::bind("10.1.0.5:0").expect("binds");
        assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_ok(), "detached");
        assert!(guard.attach_netfilter().expect("links"));
        assert_eq!(guard.attach_egress(&[exit("va")]).expect("links"), ["va"]);
        assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_err(), "back");
        drop(guard);
        assert!(socket.send_to(b"in clear", "10.2.0.9:9").is_err(), "and pinned");
        let (_steering, mut guard) = guarding(run);
        command("ip link del va");
        assert_eq!(guard.attach_egress(&[]).expect("gone"), Vec::<String>::new());
        assert_eq!(guard.exits(), 0);
    });
}

#[test]
fn a_device_without_link_layer_headers_is_guarded_too() {
    in_own_network(|run| {
        let (_steering, mut guard) = guarding(run);
        command("ip tuntap add tun9 mode tun");
        command("ip link set tun9 up");
        let tun = Exit { ethernet: false, ..exit("tun9") };
        assert_eq!(guard.attach_egress(&[exit("va"), tun]).expect("links"), ["tun9"]);
        let packet = &ip("10.1.0.5", "10.2.0.9", UDP, &udp(1, 2, b"x"))[14..];
        let hex = hex(packet);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0800)
try: s.sendto(bytes.fromhex('{hex}'), ('tun9', 0x0800))
except OSError: pass"
        );
        assert!(Command::new("/usr/bin/python3").args(["-c", &script]).status().expect("python").success());
        assert_eq!(dropped(&guard, GuardLayer::Egress), 1);
    });
}

#[test]
fn ike_passes_from_the_named_socket_alone_and_only_as_ike() {
    in_own_network(|run| {
        let (_steering, mut guard) = guarding(run);
        let to = "10.2.0.9:500";
        let ours = UdpSocket::bind("10.1.0.5:500").expect("binds");
        let other = UdpSocket::bind("10.1.0.5:4500").expect("binds");
        let cookie = rustix::net::sockopt::socket_cookie(&ours).expect("a cookie");
        let message = ike(28);
        let behind_marker = [&[0; 4], &message[..]].concat();
        assert!(ours.send_to(&message, to).is_err(), "not named yet");
        guard.set_ike_sockets(&[(cookie, 500)]).expect("a socket");
        for good in [&message[..], &behind_marker, &[0xff]] {
            assert!(ours.send_to(good, to).is_ok(), "{good:02x?}");
        }
        assert!(ours.send_to(&ike_of(4000), to).is_ok(), "in fragments");
        let wrong_version = {
            let mut m = ike(28);
            m[17] = 0x10;
            m
        };
        for bad in [&b"text"[..], &[0], &ike(29), &wrong_version, &[0; 28]] {
            assert!(ours.send_to(bad, to).is_err(), "{bad:02x?}");
        }
        assert!(other.send_to(&message, to).is_err(), "another socket");
        guard.set_ike_sockets(&[]).expect("none");
        assert!(ours.send_to(&message, to).is_err(), "not named any more");
        assert_eq!(dropped(&guard, GuardLayer::Egress), 0, "the fragments passed there too");
    });
}

/// A long IKE message.
fn ike_of(length: u16) -> Vec<u8> {
    let mut message = ike(0);
    message[26..28].copy_from_slice(&length.to_be_bytes());
    message.resize(usize::from(length), 0);
    message
}

/// Runs a test on a thread with a network namespace of its own, in which `va` leads to the other sides.
fn in_own_network(test: impl FnOnce(&RunDir) + Send) {
    let Some(run) = RunDir::new() else { return };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                for line in [
                    "ip link set lo up",
                    "ip link add va type veth peer name vb",
                    "ip addr add 10.1.0.5/24 dev va",
                    "ip addr add fd00:1::5/64 dev va nodad",
                    "ip link set va up",
                    "ip link set vb up",
                    "ip route add 10.2.0.0/16 dev va",
                    "ip route add 198.51.100.0/24 dev va",
                    "ip route add fd00:2::/32 dev va",
                    "ip neigh add 10.2.0.9 lladdr 02:00:00:00:00:0a nud permanent dev va",
                    "ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:0a nud permanent dev va",
                    "ip neigh add fd00:2::9 lladdr 02:00:00:00:00:0a nud permanent dev va",
                ] {
                    command(line);
                }
                test(&run);
            }
            Err(errno) => println!("skipped: no network namespace: {errno}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn hex(octets: &[u8]) -> String {
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn command(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let status = Command::new(program).args(words).status().expect("the command runs");
    assert!(status.success(), "{line}");
}
