//! Netlink mirror, host port and locks against a real kernel, in a network namespace of the test's own.
//!
//! ```text
//!   thread's namespace: lan0 10.1.0.1/24, wan0 192.0.2.1/24 ══ veth ══ namespace of a sleeping child: 192.0.2.2
//! ```
//!
//! Needs root; prints `skipped: …` without. The namespaces end with the thread and the child.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use pollux_dataplane::host_port::{self, HostPort};
use pollux_dataplane::locks::{self, Locks};
use pollux_dataplane::netlink::Rtnl;
use pollux_dataplane::netlink::mirror::{Changes, Mirror};
use pollux_packet::PortSlot;
use pollux_worker::forward::fib::{Fib, NextHop};

/// A child that keeps a namespace alive.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs `test` on a thread in a namespace of its own.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace can be made: {error}");
            return;
        }
        sh("ip link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// `wan0` here, the other end in a namespace of its own.
fn wan() -> Peer {
    let child = Command::new("unshare")
        .args(["-n", "sleep", "60"])
        .stdin(Stdio::null())
        .spawn()
        .expect("unshare runs");
    let peer = Peer(child);
    let pid = peer.0.id();
    let ours = sh("readlink /proc/thread-self/ns/net");
    let deadline = Instant::now() + Duration::from_secs(5);
    while sh(&format!("readlink /proc/{pid}/ns/net")) == ours {
        assert!(Instant::now() < deadline, "the child stays in our namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    sh(&format!("ip link add wan0 type veth peer name eth0 netns {pid}"));
    sh("ip addr add 192.0.2.1/24 dev wan0; ip link set wan0 up");
    sh(&format!("nsenter -t {pid} -n sh -c 'ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up'"));
    peer
}

/// Updates until `done` likes a change.
fn follow(mirror: &mut Mirror, what: &str, mut done: impl FnMut(&Mirror, &Changes) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let changes = mirror.update().unwrap();
        if done(mirror, &changes) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn nothing_is_lost_where_the_kernel_drops_notifications() {
    in_namespace(|| {
        let _peer = wan();
        sh("ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev wan0 nud permanent");
        let mut mirror = Mirror::open(locks::TABLES).unwrap();
        let wan0 = mirror.link_named("wan0").unwrap().index;
        let slot = move |link| (link == wan0).then_some(PortSlot(0));
        for turn in 0..3 {
            // Word of this is among what is read before the loss shows.
            sh("ip neigh del 192.0.2.77 dev wan0");
            let verb = if turn % 2 == 0 { "add" } else { "del" };
            sh(&format!(
                "for i in $(seq 0 119); do for j in $(seq 0 249); do echo route {verb} 10.$i.$j.0/24 via 192.0.2.2; done; done | ip -batch -"
            ));
            let changes = mirror.update().unwrap();
            assert!(changes.resynchronised, "30,000 notifications are more than the socket holds");
            assert!(changes.neighbours_gone.contains(&(wan0, ip("192.0.2.77"))), "turn {turn}");
            let fresh = Mirror::open(locks::TABLES).unwrap();
            let routes = |mirror: &Mirror| {
                // IPv6 addresses of the link become valid meanwhile, and have routes then.
                let of_ipv4 = mirror.forwarding(slot).into_iter().filter(|route| route.destination.is_ipv4());
                let mut all: Vec<String> = of_ipv4.map(|route| format!("{route:?}")).collect();
                all.sort_unstable();
                all
            };
            assert!(routes(&mirror) == routes(&fresh), "turn {turn}");
            sh("ip neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev wan0 nud permanent");
            follow(&mut mirror, "the neighbour", |mirror, _| {
                mirror.neighbours().any(|neighbour| neighbour.address == ip("192.0.2.77"))
            });
        }
    });
}

#[test]
fn mirror_follows_links_addresses_and_routes() {
    in_namespace(|| {
        let _peer = wan();
        let mut mirror = Mirror::open(locks::TABLES).unwrap();
        let wan0 = mirror.link_named("wan0").unwrap().index;
        let slot = move |link| (link == wan0).then_some(PortSlot(0));
        let lookup = move |mirror: &Mirror, to: &str| Fib::compile(&mirror.forwarding(slot)).lookup(ip(to));
        assert_eq!(lookup(&mirror, "192.0.2.1"), NextHop::Local);
        assert_eq!(lookup(&mirror, "192.0.2.9"), NextHop::OnLink(PortSlot(0)));
        assert_eq!(lookup(&mirror, "10.2.0.1"), NextHop::Unreachable);

        sh("ip route add 10.2.0.0/16 via 192.0.2.2; ip -6 addr add 2001:db8::1/64 dev wan0 nodad");
        follow(&mut mirror, "the route", |mirror, _| {
            lookup(mirror, "10.2.0.1") == NextHop::Via(PortSlot(0), ip("192.0.2.2"))
                && lookup(mirror, "2001:db8::2") == NextHop::OnLink(PortSlot(0))
        });
        assert!(mirror.addresses().contains(&ip("2001:db8::1")));

        // The kernel says nothing of the routes that go with an interface.
        sh("ip link set wan0 down");
        follow(&mut mirror, "the loss of the route", |mirror, _| {
            lookup(mirror, "10.2.0.1") == NextHop::Unreachable
        });
        sh("ip link set wan0 name wan7");
        follow(&mut mirror, "the new name", |mirror, _| {
            mirror.link_named("wan7").is_some_and(|link| link.index == wan0 && !link.up)
        });
    });
}

#[test]
fn next_hops_of_a_multipath_route_share_its_destinations_while_they_live() {
    in_namespace(|| {
        let _peer = wan();
        for (name, address) in [("second", "192.0.3.1/24"), ("other", "192.0.4.1/24")] {
            sh(&format!(
                "ip link add {name}0 type veth peer name {name}1; ip addr add {address} dev {name}0"
            ));
            sh(&format!("ip link set {name}1 up; ip link set {name}0 up"));
        }
        sh("ip -6 addr add 2001:db8::1/64 dev wan0 nodad; ip -6 addr add 2001:db8:3::1/64 dev second0 nodad");
        let mut mirror = Mirror::open(locks::TABLES).unwrap();
        let index = |name: &str| mirror.link_named(name).unwrap().index;
        let (wan0, second0) = (index("wan0"), index("second0"));
        let ports = move |link| match link {
            _ if link == wan0 => Some(PortSlot(0)),
            _ if link == second0 => Some(PortSlot(1)),
            _ => None,
        };
        // How many of 400 destinations go out of each port, and how many elsewhere.
        let shares = move |mirror: &Mirror, prefix: &str| {
            let fib = Fib::compile(&mirror.forwarding(ports));
            let mut taken = [0; 3];
            for host in 1..=400 {
                let to = if prefix.contains(':') {
                    format!("{prefix}{host:x}")
                } else {
                    format!("{prefix}{}.{}", host / 200, host % 200)
                };
                let NextHop::Via(PortSlot(slot), _) = fib.lookup(ip(&to)) else {
                    taken[2] += 1;
                    continue;
                };
                taken[usize::from(slot)] += 1;
            }
            taken
        };
        // The third leg leads out of no port of ours.
        sh(
            "ip route add 10.2.0.0/16 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.3.2 weight 1 nexthop via 192.0.4.2",
        );
        sh("ip -6 route add 2001:db8:9::/64 nexthop via 2001:db8::2 nexthop via 2001:db8:3::2");
        follow(&mut mirror, "both routes", |mirror, _| {
            let (v4, v6) = (shares(mirror, "10.2."), shares(mirror, "2001:db8:9::"));
            v4[0] > 250 && v4[1] > 60 && v4[2] == 0 && v6[0] > 140 && v6[1] > 140
        });
        sh("ip link set second0 down");
        follow(&mut mirror, "the loss of a leg", |mirror, _| {
            shares(mirror, "10.2.") == [400, 0, 0] && shares(mirror, "2001:db8:9::") == [400, 0, 0]
        });
    });
}

#[test]
fn the_kernel_resolves_a_neighbour_that_is_in_use() {
    in_namespace(|| {
        let _peer = wan();
        let mut mirror = Mirror::open(locks::TABLES).unwrap();
        let wan0 = mirror.link_named("wan0").unwrap().index;
        let mut rtnl = Rtnl::open().unwrap();
        for (address, resolves) in [("192.0.2.2", true), ("192.0.2.77", false)] {
            rtnl.use_neighbour(wan0, ip(address)).unwrap();
            follow(&mut mirror, address, |_, changes| {
                let found = changes.neighbours.iter().find(|neighbour| neighbour.address == ip(address));
                found.is_some_and(|neighbour| {
                    assert_eq!(neighbour.mac.is_some(), resolves, "{neighbour:?}");
                    assert_eq!(neighbour.failed, !resolves);
                    true
                })
            });
        }
    });
}

#[test]
fn protected_prefixes_lead_to_pollux0_and_nowhere_else() {
    in_namespace(|| {
        let _peer = wan();
        sh("ip link add lan0 type veth peer name lan1; ip addr add 10.1.0.1/24 dev lan0; \
             ip addr add fd01::1/64 dev lan0 nodad; ip link set lan0 up");
        sh("ip link set lan1 up; ip route add default via 192.0.2.2; sysctl -qw net.ipv4.ip_forward=1");
        let mut rtnl = Rtnl::open().unwrap();
        let port = HostPort::ensure(&mut rtnl, 2, 1500).unwrap();
        assert_eq!(port.remarks, Vec::<String>::new());
        assert_eq!(port.ours.queues, 2);
        let again = HostPort::ensure(&mut rtnl, 2, 1500).unwrap();
        assert_eq!(again.kernel.index, port.kernel.index, "an earlier pair is taken over");

        let pairs = [("10.1.0.0/16", "10.0.0.0/8"), ("0.0.0.0/0", "0.0.0.0/0"), ("fd01::/64", "fd02::/64")]
            .map(|(local, remote)| (local.parse().unwrap(), remote.parse().unwrap()));
        let own = [ip("10.1.0.1"), ip("192.0.2.1"), ip("fd01::1")];
        let mut locks = Locks::default();
        for _ in 0..2 {
            locks.apply(&mut rtnl, &pairs, Some(port.kernel_index()), &own).unwrap();
        }
        let way = |to: &str| sh(&format!("ip route get {to} 2>&1 || true"));
        assert!(way("10.2.0.1").contains("dev pollux0"), "{}", way("10.2.0.1"));
        assert!(way("10.2.0.1").contains("src 10.1.0.1"), "the protected source: {}", way("10.2.0.1"));
        assert!(way("10.1.0.7").contains("dev lan0"), "our own side stays: {}", way("10.1.0.7"));
        assert!(
            way("8.8.8.8").contains("dev wan0"),
            "the gateway itself is not locked out: {}",
            way("8.8.8.8")
        );
        assert!(way("fd02::1").contains("dev pollux0"), "{}", way("fd02::1"));
        assert!(way("fd02::1").contains("src fd01::1"), "the protected source: {}", way("fd02::1"));
        assert!(way("fd02::1 from fd01::1").contains("dev pollux0"), "{}", way("fd02::1 from fd01::1"));
        let elsewhere = way("10.2.0.1 from 172.16.0.1 iif lan0");
        assert!(elsewhere.contains("dev pollux0"), "the wide selector binds it: {elsewhere}");
        assert!(way(&format!("10.2.0.1 mark {}", locks::IKE_MARK)).contains("dev wan0"), "IKE gets through");
        let forwarded = way("8.8.8.8 from 172.16.0.1 iif lan0");
        assert!(forwarded.contains("dev pollux0"), "what is forwarded is bound: {forwarded}");

        // A new process with fewer pairs cleans up after the old one.
        let mut next = Locks::default();
        next.apply(&mut rtnl, &pairs[..1], Some(port.kernel_index()), &own).unwrap();
        assert!(way("fd02::1").contains("unreachable"), "{}", way("fd02::1"));
        assert!(way("8.8.8.8 from 172.16.0.1 iif lan0").contains("dev wan0"));
        let elsewhere = way("10.2.0.1 from 172.16.0.1 iif lan0");
        assert!(elsewhere.contains("dev wan0"), "what is from elsewhere is not ours: {elsewhere}");

        HostPort::remove(&mut rtnl).unwrap();
        assert!(way("10.2.0.1").contains("No route to host"), "without pollux0: {}", way("10.2.0.1"));
        Locks::remove_all(&mut rtnl).unwrap();
        assert!(way("10.2.0.1").contains("dev wan0"), "{}", way("10.2.0.1"));
        assert_eq!(sh("ip rule list; ip -6 rule list").matches("2056").count(), 0);
        assert!(rtnl.link_named(host_port::OUR_END).unwrap().is_none());
    });
}
