//! Frames that end too early, and frames of random octets.

use std::cell::RefCell;

use pollux_ebpf::Role::{self, Host, Lan, Wan};
use pollux_ebpf::{Disposition, SteerError, XdpVerdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frame::*;
use crate::rig::{OUR_SPI, PORT_MAC, Rig, SITE_PAIRS};

/// What it is, where it comes in, the whole frame, and from which length on which verdict holds.
type Cut = (&'static str, Role, Vec<u8>, &'static [(usize, XdpVerdict)]);

#[test]
fn a_frame_truncated_at_any_octet_is_judged_by_what_is_left() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    let natt = udp(4500, 4500, &esp(OUR_SPI));
    let rows: [Cut; 7] = [
        (
            "ESP behind options",
            Wan,
            ip_with("198.51.100.2", "203.0.113.1", Header { ihl: 8, ..Header::of(ESP) }, &esp(OUR_SPI)),
            &[(14, XdpVerdict::PassMalformed), (54, XdpVerdict::XskEsp)],
        ),
        (
            "ESP over IPv6 behind a routing header",
            Wan,
            ip6_extended("2001:db8:e::2", "2001:db8:f::1", &[(ROUTING, 24)], ESP, &esp(OUR_SPI)),
            &[
                (14, XdpVerdict::PassMalformed),
                (54, XdpVerdict::PassLocal),
                (78, XdpVerdict::PassMalformed),
                (86, XdpVerdict::XskEsp),
            ],
        ),
        (
            "ESP in UDP",
            Wan,
            ip("198.51.100.2", "203.0.113.1", UDP, &natt),
            &[
                (14, XdpVerdict::PassMalformed),
                (34, XdpVerdict::PassLocal),
                (42, XdpVerdict::PassNatt),
                (46, XdpVerdict::XskEspUdp),
            ],
        ),
        (
            "protected",
            Lan,
            ip("10.1.7.7", "10.2.8.8", UDP, &natt),
            &[(14, XdpVerdict::PassMalformed), (34, XdpVerdict::XskProtected)],
        ),
        (
            "protected over IPv6",
            Host,
            ip6_extended("fd00:1::7", "fd00:2::8", &[(HOP_BY_HOP, 16)], UDP, &natt),
            &[(14, XdpVerdict::PassMalformed), (54, XdpVerdict::XskProtected)],
        ),
        (
            "tagged twice and protected",
            Lan,
            tag(&ip("10.1.7.7", "10.2.8.8", UDP, &natt), &[QINQ, VLAN]),
            &[(14, XdpVerdict::PassMalformed), (42, XdpVerdict::DropTagged)],
        ),
        (
            "clear on the wan",
            Wan,
            ip("10.2.8.8", "10.1.7.7", UDP, &natt),
            &[(14, XdpVerdict::PassMalformed), (34, XdpVerdict::XskClear)],
        ),
    ];
    for (description, role, frame, steps) in rows {
        for len in 14..=frame.len() {
            let expected = steps.iter().rev().find(|step| step.0 <= len).expect("steps begin at 14").1;
            let (verdict, _) = rig.judge(role, &frame[..len]);
            assert_eq!(verdict, expected, "{role}: {description}, cut to {len} of {}", frame.len());
        }
    }
}

#[test]
fn frames_below_an_ethernet_header_never_reach_the_program() {
    let Some(mut rig) = Rig::new(SITE_PAIRS) else { return };
    for len in 0..14 {
        assert!(matches!(rig.steering.test_run(&vec![0; len]), Err(SteerError::TestRun { .. })));
    }
}

#[test]
fn damaged_frames_get_one_verdict_and_protected_addresses_never_pass() {
    let Some(rig) = Rig::new(SITE_PAIRS) else { return };
    let natt = udp(4500, 4500, &esp(OUR_SPI));
    let seeds = [
        tag(&ip("10.1.7.7", "10.2.8.8", UDP, &natt), &[VLAN]),
        ip("10.1.7.7", "10.2.8.8", UDP, &natt),
        ip6_extended("fd00:1::7", "fd00:2::8", &[(HOP_BY_HOP, 8), (ROUTING, 24), (FRAGMENT, 8)], UDP, &natt),
        ip("198.51.100.2", "203.0.113.1", ESP, &esp(OUR_SPI)),
        ip6_extended("2001:db8:e::2", "2001:db8:f::1", &[(DEST_OPTIONS, 32)], UDP, &natt),
    ];
    let role = prop::sample::select(vec![Wan, Lan, Host]);
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let strategy = (prop::sample::select(seeds.to_vec()), role, damage, 14_usize..120);
    let rig = RefCell::new(rig);
    let mut runner = TestRunner::new(Config { cases: 4_000, failure_persistence: None, ..Config::default() });
    let disposition = runner.run(&strategy, |(mut frame, role, damage, len)| {
        for (at, octet) in damage {
            let at = at.index(frame.len());
            frame[at] = octet;
        }
        frame.truncate(len);
        // judge() asserts that exactly one counter moved and that the action agrees with it.
        let (verdict, _) = rig.borrow_mut().judge(role, &frame);
        let for_us = role == Host || frame[..6] == PORT_MAC;
        if role != Wan && for_us && carries_protected_addresses(&frame) {
            prop_assert_ne!(
                verdict.disposition(),
                Disposition::Kernel,
                "{} let {:02x?} pass",
                verdict,
                frame
            );
        }
        Ok(())
    });
    disposition.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Whether the kernel would route this as a packet of the IPv4 pair: a whole header, a unicast frame.
fn carries_protected_addresses(frame: &[u8]) -> bool {
    let header_len = frame.get(14).map_or(0, |octet| usize::from(octet & 15) * 4);
    frame[0] & 1 == 0
        && frame[12..14] == IPV4.to_be_bytes()
        && frame.len() >= 34
        && frame[14] >> 4 == 4
        && (20..=frame.len() - 14).contains(&header_len)
        && frame[26..28] == [10, 1]
        && frame[30..32] == [10, 2]
}
