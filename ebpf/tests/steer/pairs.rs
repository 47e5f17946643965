//! Packets of protected pairs: to a worker or nowhere, in whatever dress they come.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use pollux_ebpf::Role::{Host, Lan, Wan};
use pollux_ebpf::{Capacity, Disposition, IpNet, SteerError, Steering, XdpAction, XdpVerdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frame::*;
use crate::rig::{ALL_PAIRS, LO, OUR_SPI, Rig, SITE_PAIRS, prefixes};
use crate::run_dir::RunDir;

const HERE: &str = "10.1.7.7";
const THERE: &str = "10.2.8.8";
const HERE6: &str = "fd00:1::7";
const THERE6: &str = "fd00:2::8";

#[test]
fn protected_packets_go_to_the_worker_from_both_sides() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let rtp = udp(6000, 6000, &[0x80, 8, 0, 1]);
    let out = ip(HERE, THERE, UDP, &rtp);
    let out6 = ip(HERE6, THERE6, UDP, &rtp);
    let back = ip(THERE, HERE, UDP, &rtp);
    let back6 = ip(THERE6, HERE6, UDP, &rtp);
    let long_header = ip_with(HERE, THERE, Header { ihl: 9, ..Header::of(UDP) }, &rtp);
    let options = ip6_extended(HERE6, THERE6, &[(HOP_BY_HOP, 8), (ROUTING, 24)], UDP, &rtp);
    rig.check(&[
        ("out", Lan, out.clone(), XdpVerdict::XskProtected),
        ("out over IPv6", Lan, out6.clone(), XdpVerdict::XskProtected),
        ("out from the host", Host, out.clone(), XdpVerdict::XskProtected),
        ("out with IP options", Lan, long_header, XdpVerdict::XskProtected),
        ("out with extension headers", Lan, options, XdpVerdict::XskProtected),
        ("out, no upper layer", Lan, ip(HERE6, THERE6, NO_NEXT, &[]), XdpVerdict::XskProtected),
        ("ESP of a LAN host", Lan, ip(HERE, THERE, ESP, &esp(OUR_SPI)), XdpVerdict::XskProtected),
        ("IKE of a LAN host", Lan, ip(HERE, THERE, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::XskProtected),
        ("clear from the wan", Wan, back.clone(), XdpVerdict::XskClear),
        ("clear from the wan over IPv6", Wan, back6.clone(), XdpVerdict::XskClear),
        ("clear to the inside address", Wan, ip(THERE, "10.1.0.1", TCP, &tcp(1, 22)), XdpVerdict::XskClear),
        (
            "clear to the inside IPv6 address",
            Wan,
            ip(THERE6, "fd00:1::1", TCP, &tcp(1, 22)),
            XdpVerdict::XskClear,
        ),
        ("clear ESP in transit", Wan, ip(THERE, HERE, ESP, &esp(OUR_SPI)), XdpVerdict::XskClear),
        ("clear IKE in transit", Wan, ip(THERE, HERE, UDP, &udp(500, 500, &[1; 28])), XdpVerdict::XskClear),
        (
            "clear UDP 4500 in transit",
            Wan,
            ip(THERE, HERE, UDP, &udp(4500, 4500, &[0; 28])),
            XdpVerdict::XskClear,
        ),
        (
            "to the inside address from outside",
            Wan,
            ip("192.0.2.1", "10.1.0.1", TCP, &tcp(1, 22)),
            XdpVerdict::PassLocal,
        ),
        ("LAN host to the gateway", Lan, ip(HERE, "10.1.0.1", TCP, &tcp(1, 22)), XdpVerdict::PassLocal),
        ("source outside the pair", Lan, ip("10.3.0.1", THERE, UDP, &rtp), XdpVerdict::PassOther),
        ("destination outside the pair", Lan, ip(HERE, "10.3.0.1", UDP, &rtp), XdpVerdict::PassOther),
        ("one below the prefix", Lan, ip("10.0.255.255", THERE, UDP, &rtp), XdpVerdict::PassOther),
        ("one above the prefix", Lan, ip(HERE, "10.3.0.0", UDP, &rtp), XdpVerdict::PassOther),
        ("IPv6 outside the pair", Lan, ip(HERE6, "fd00:3::8", UDP, &rtp), XdpVerdict::PassOther),
        ("the wrong way round, lan", Lan, back, XdpVerdict::PassOther),
        ("the wrong way round, wan", Wan, out, XdpVerdict::PassOther),
    ]);
}

#[test]
fn fragments_of_a_protected_flow_never_pass_in_clear() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let fragment = |from, to, frag| ip_with(from, to, Header { frag, ..Header::of(UDP) }, &[0; 32]);
    let fragment6 = |from, to, chain: &[_]| ip6_extended(from, to, chain, UDP, &[0; 32]);
    rig.check(&[
        ("first", Lan, fragment(HERE, THERE, 0x2000), XdpVerdict::XskFragment),
        ("middle", Lan, fragment(HERE, THERE, 0x2001), XdpVerdict::XskFragment),
        ("last", Lan, fragment(HERE, THERE, 0x1fff), XdpVerdict::XskFragment),
        ("IPv6", Lan, fragment6(HERE6, THERE6, &[(FRAGMENT, 8)]), XdpVerdict::XskFragment),
        (
            "IPv6 behind options",
            Lan,
            fragment6(HERE6, THERE6, &[(HOP_BY_HOP, 8), (FRAGMENT, 8)]),
            XdpVerdict::XskFragment,
        ),
        ("from the host", Host, fragment(HERE, THERE, 0x2000), XdpVerdict::XskFragment),
        ("clear from the wan", Wan, fragment(THERE, HERE, 0x00b9), XdpVerdict::XskClear),
        ("clear from the wan, IPv6", Wan, fragment6(THERE6, HERE6, &[(FRAGMENT, 8)]), XdpVerdict::XskClear),
        ("clear to the inside address", Wan, fragment(THERE, "10.1.0.1", 0x2000), XdpVerdict::XskClear),
        ("of another flow", Lan, fragment("10.3.0.1", THERE, 0x2000), XdpVerdict::PassOther),
    ]);
}

#[test]
fn tagged_frames_of_a_protected_flow_are_dropped() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let out = ip(HERE, THERE, UDP, &udp(6000, 6000, &[0; 20]));
    let back = ip(THERE6, HERE6, UDP, &udp(6000, 6000, &[0; 20]));
    let other = ip(HERE, "192.0.2.1", UDP, &udp(6000, 6000, &[0; 20]));
    let arp = ether(ARP, &[0; 28]);
    rig.check(&[
        ("802.1Q", Lan, tag(&out, &[VLAN]), XdpVerdict::DropTagged),
        ("802.1ad", Lan, tag(&out, &[QINQ]), XdpVerdict::DropTagged),
        ("QinQ", Lan, tag(&out, &[QINQ, VLAN]), XdpVerdict::DropTagged),
        ("three tags", Lan, tag(&out, &[QINQ, VLAN, VLAN]), XdpVerdict::DropTagged),
        ("four tags", Host, tag(&out, &[VLAN; 4]), XdpVerdict::DropTagged),
        ("five tags", Lan, tag(&out, &[VLAN; 5]), XdpVerdict::DropTagDepth),
        ("from the wan", Wan, tag(&back, &[QINQ, VLAN]), XdpVerdict::DropTagged),
        ("not protected", Lan, tag(&other, &[VLAN]), XdpVerdict::PassOther),
        ("QinQ, not protected", Wan, tag(&other, &[QINQ, VLAN]), XdpVerdict::PassOther),
        ("ARP in a VLAN", Lan, tag(&arp, &[VLAN]), XdpVerdict::PassNonIp),
        ("a tag cut short", Lan, tag(&out, &[VLAN])[..16].to_vec(), XdpVerdict::PassMalformed),
    ]);
}

#[test]
fn without_a_socket_protected_packets_die() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    rig.kill_socket();
    let rtp = udp(6000, 6000, &[0x80, 8, 0, 1]);
    rig.check(&[
        ("out", Lan, ip(HERE, THERE, UDP, &rtp), XdpVerdict::DropNoXsk),
        ("out from the host", Host, ip(HERE6, THERE6, UDP, &rtp), XdpVerdict::DropNoXsk),
        ("clear from the wan", Wan, ip(THERE, HERE, UDP, &rtp), XdpVerdict::DropNoXsk),
        ("ESP", Wan, ip("198.51.100.2", "203.0.113.1", ESP, &esp(OUR_SPI)), XdpVerdict::DropNoXsk),
        (
            "ESP in UDP",
            Wan,
            ip("198.51.100.2", "203.0.113.1", UDP, &udp(4500, 4500, &esp(OUR_SPI))),
            XdpVerdict::DropNoXsk,
        ),
        ("SSH goes on", Wan, ip("198.51.100.2", "203.0.113.1", TCP, &tcp(1, 22)), XdpVerdict::PassLocal),
        ("other traffic goes on", Lan, ip(HERE, "192.0.2.1", UDP, &rtp), XdpVerdict::PassOther),
    ]);
    rig.steering.clear_xsk(LO, pollux_abi::QueueId(0)).expect("clearing what is gone is fine");
}

#[test]
fn pairs_of_different_ip_versions_are_refused() {
    let Some(run) = RunDir::new() else { return };
    let mut steering = Steering::open(&run.pins, Capacity::default()).expect("the program loads");
    let mixed = prefixes(&[("10.0.0.0/8", "fd00::/8")]);
    assert!(matches!(steering.set_protected(&mixed), Err(SteerError::MixedFamilies { .. })));
}

#[test]
fn too_many_prefixes_are_refused_and_change_nothing() {
    let Some(run) = RunDir::new() else { return };
    let capacity = Capacity { prefixes: 2, ..Capacity::default() };
    let mut steering = Steering::open(&run.pins, capacity).expect("the program loads");
    steering.add_port(LO, Lan).expect("a slot");
    let two = prefixes(&[("10.1.0.0/16", "10.2.0.0/16"), ("10.1.0.0/16", "10.3.0.0/16")]);
    steering.set_protected(&two).expect("two fit");
    let third = prefixes(&[("10.1.0.0/16", "10.4.0.0/16")]);
    let refused = steering.set_protected(&third);
    assert!(matches!(refused, Err(SteerError::TooManyPrefixes { side: "remote", needed: 3, capacity: 2 })));
    let protected = ip(HERE, "10.3.0.1", UDP, &[0; 8]);
    assert_eq!(steering.test_run(&protected).expect("a frame").action, XdpAction::Drop);
}

#[test]
fn the_program_agrees_with_a_plain_list_of_pairs_through_every_change() {
    let Some(mut rig) = Rig::new(&[]) else { return };
    rig.steering.set_local_addrs(&[]).expect("no addresses");
    let rig = RefCell::new(rig);
    let mut runner = TestRunner::new(Config { cases: 100, failure_persistence: None, ..Config::default() });
    let strategy = (prop::collection::vec(pair(), 0..12), prop::collection::vec(addresses(), 40));
    let disposition = runner.run(&strategy, |(pairs, packets)| {
        let rig = &mut *rig.borrow_mut();
        rig.steering.set_protected(&pairs).expect("a small set fits");
        for (local, remote) in packets {
            let frame = ip(&local.to_string(), &remote.to_string(), UDP, &[0; 8]);
            let expected = pairs.iter().any(|(l, r)| l.contains(&local) && r.contains(&remote));
            let disposition = rig.judge(Lan, &frame).0.disposition();
            prop_assert_eq!(disposition == Disposition::Worker, expected, "{} → {}", local, remote);
        }
        Ok(())
    });
    disposition.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Prefixes from a small space, so that they nest and repeat.
fn pair() -> impl Strategy<Value = (IpNet, IpNet)> {
    (addresses(), 0_u8..=32, 0_u8..=32).prop_map(|((local, remote), local_len, remote_len)| {
        // IPv4 lengths around the octets that vary; for IPv6, the same bits sit 96 further.
        let shift = if local.is_ipv4() { 0 } else { 96 };
        let prefix = |address, len| IpNet::new(address, len + shift).expect("at most 32 or 128");
        (prefix(local, local_len), prefix(remote, remote_len))
    })
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    (any::<bool>(), 0_u32..32, 0_u32..32).prop_map(|(is_v4, local, remote)| {
        let spread = |n: u32| (n & 3) | (n >> 2 & 3) << 12 | (n >> 4) << 22;
        let address = |n: u32| {
            if is_v4 {
                IpAddr::V4((0x0a00_0000 | spread(n)).into())
            } else {
                IpAddr::V6((0xfd00_u128 << 112 | u128::from(spread(n))).into())
            }
        };
        (address(local), address(remote))
    })
}

#[test]
fn a_change_of_pairs_leaves_no_moment_without_protection() {
    let Some(mut rig) = Rig::new(ALL_PAIRS) else { return };
    rig.set_role(Lan);
    let mut second = Steering::open(&rig.run.pins, Capacity::default()).expect("the same maps");
    // Each covers the packet by other prefixes, more and less specific ones.
    let sets: Vec<Vec<(IpNet, IpNet)>> = [
        vec![("0.0.0.0/0", "0.0.0.0/0")],
        vec![("10.1.0.0/16", "10.2.0.0/16")],
        vec![("10.1.7.0/24", "10.2.0.0/16"), ("10.1.7.7/32", "192.0.2.0/24")],
        vec![("10.0.0.0/8", "10.2.8.8/32"), ("10.1.7.7/32", "10.2.8.0/24"), ("0.0.0.0/0", "10.2.8.8/31")],
        vec![("10.1.7.7/32", "10.2.8.8/32"), ("10.1.0.0/16", "10.9.0.0/16")],
    ]
    .iter()
    .map(|set| prefixes(set))
    .collect();
    let frame = ip(HERE, THERE, UDP, &[0; 8]);
    let done = AtomicBool::new(false);
    let steering = &mut rig.steering;
    let (runs, passed) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut runs, mut passed) = (0_u32, 0_u32);
            while !done.load(Ordering::Relaxed) {
                let action = second.test_run(&frame).expect("a frame").action;
                runs += 1;
                passed += u32::from(action != XdpAction::Redirect);
            }
            (runs, passed)
        });
        for round in 0..40 {
            steering.set_protected(&sets[round * 7 % sets.len()]).expect("a small set fits");
            steering.set_protected(&sets[round % sets.len()]).expect("a small set fits");
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    });
    assert!(runs > 100, "only {runs} frames were judged");
    assert_eq!(passed, 0, "of {runs} frames");
}
