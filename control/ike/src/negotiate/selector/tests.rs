use core::net::IpAddr;

use pollux_abi::PortRange;
use proptest::prelude::*;

use super::*;

fn net(text: &str) -> TrafficSelector {
    let (address, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(address.parse().expect("an address"), len.parse().expect("a length"))
        .expect("fits")
}

fn with(text: &str, protocol: u8, first: u16, last: u16) -> TrafficSelector {
    let mut selector = net(text);
    selector.protocol = Some(protocol);
    selector.ports = PortRange { first, last };
    selector
}

#[test]
fn narrowing_takes_what_both_sides_allow() {
    /// What the row is about; ours, theirs, and what becomes of them.
    type Row<'a> = (&'a str, &'a [TrafficSelector], &'a [TrafficSelector], &'a [TrafficSelector]);
    let rows: &[Row<'_>] = &[
        ("equal", &[net("10.1.0.0/16")], &[net("10.1.0.0/16")], &[net("10.1.0.0/16")]),
        ("theirs wider", &[net("10.1.0.0/16")], &[net("0.0.0.0/0")], &[net("10.1.0.0/16")]),
        ("ours wider", &[net("0.0.0.0/0")], &[net("10.1.2.3/32")], &[net("10.1.2.3/32")]),
        ("apart", &[net("10.1.0.0/16")], &[net("10.2.0.0/16")], &[]),
        ("families do not mix", &[net("0.0.0.0/0")], &[net("::/0")], &[]),
        (
            "both families at once",
            &[net("10.0.0.0/8"), net("2001:db8::/32")],
            &[net("::/0"), net("0.0.0.0/0")],
            &[net("2001:db8::/32"), net("10.0.0.0/8")],
        ),
        (
            "ports and protocol",
            &[with("10.0.0.0/8", 17, 5060, 5070)],
            &[with("10.1.0.0/16", 17, 5065, 6000), with("10.1.0.0/16", 6, 0, 65535)],
            &[with("10.1.0.0/16", 17, 5065, 5070)],
        ),
        (
            "the packet's selector melts into the wider one behind it",
            &[net("10.0.0.0/8")],
            &[with("10.1.1.1/32", 17, 4000, 4000), net("10.1.0.0/16")],
            &[net("10.1.0.0/16")],
        ),
        (
            "several of ours in one of theirs",
            &[net("10.1.0.0/16"), net("10.9.0.0/16")],
            &[net("10.0.0.0/8")],
            &[net("10.1.0.0/16"), net("10.9.0.0/16")],
        ),
    ];
    for (what, ours, theirs, expected) in rows {
        assert_eq!(narrow(ours, theirs.iter().copied()), *expected, "{what}");
    }
}

#[test]
fn an_answer_never_has_more_selectors_than_an_sa_can_carry() {
    let theirs: Vec<_> = (0..255).map(|octet| net(&format!("10.{octet}.0.0/24"))).collect();
    let narrowed = narrow(&[net("10.0.0.0/8")], theirs.iter().copied());
    assert_eq!(narrowed, theirs[..SELECTORS_MAX], "the first ones, which the packet is in");
}

#[test]
fn an_answer_may_narrow_and_never_widen() {
    let offered = [net("10.1.0.0/16"), net("2001:db8::/64")];
    assert!(is_narrowed(&offered, [net("10.1.2.0/24"), net("2001:db8::7/128")]));
    assert!(!is_narrowed(&offered, [net("10.0.0.0/8")]));
    assert!(!is_narrowed(&offered, [net("10.1.2.0/24"), net("10.2.0.0/24")]));
}

#[test]
fn descriptions_stay_short() {
    assert_eq!(describe([]), "nothing");
    assert_eq!(describe([net("10.1.0.0/16"), net("::/0")]), "10.1.0.0/16, ::/0");
    assert!(describe((0..255).map(|_| net("10.1.0.0/16"))).len() < 300);
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    // Few values, so that they meet.
    let address = |octet: u8| IpAddr::from([10, 0, 0, octet]);
    (0u8..8, 0u8..8, proptest::option::of(1u8..4), 0u16..6, 0u16..6).prop_map(
        move |(a, b, protocol, c, d)| {
            let ports = PortRange { first: c.min(d), last: c.max(d) };
            TrafficSelector::new(address(a.min(b)), address(a.max(b)), protocol, ports).expect("in order")
        },
    )
}

proptest! {
    #[test]
    fn narrowing_keeps_exactly_the_packets_that_both_sides_allow(
        ours in proptest::collection::vec(selector(), 1..3),
        theirs in proptest::collection::vec(selector(), 1..3),
        octet in 0u8..8, protocol in 1u8..4, port in 0u16..6,
    ) {
        let address = IpAddr::from([10, 0, 0, octet]);
        let matches = |list: &[TrafficSelector]| list.iter().any(|one| one.contains(address, protocol, port));
        let narrowed = narrow(&ours, theirs.iter().copied());
        prop_assert!(narrowed.len() <= SELECTORS_MAX);
        prop_assert_eq!(matches(&narrowed), matches(&ours) && matches(&theirs));
        prop_assert!(is_narrowed(&ours, narrowed.iter().copied()));
        prop_assert!(is_narrowed(&theirs, narrowed));
    }
}

#[test]
fn coverage_counts_several_selectors_together() {
    /// What the row is about; the new selectors, the old ones, and whether nothing is lost.
    type Row<'a> = (&'a str, &'a [TrafficSelector], &'a [TrafficSelector], bool);
    let opaque = with("10.1.0.0/16", 17, PortRange::OPAQUE.first, PortRange::OPAQUE.last);
    let rows: &[Row<'_>] = &[
        ("the same", &[net("10.1.0.0/16")], &[net("10.1.0.0/16")], true),
        ("nothing of old", &[], &[], true),
        ("half", &[net("10.1.0.0/17")], &[net("10.1.0.0/16")], false),
        ("both halves", &[net("10.1.128.0/17"), net("10.1.0.0/17")], &[net("10.1.0.0/16")], true),
        ("without the middle", &[net("10.1.0.0/18"), net("10.1.128.0/17")], &[net("10.1.0.0/16")], false),
        ("a protocol alone", &[with("10.1.0.0/16", 17, 0, 65535)], &[net("10.1.0.0/16")], false),
        (
            "ports in two",
            &[with("::/0", 6, 0, 99), with("::/0", 6, 100, 65535)],
            &[with("::/1", 6, 0, 65535)],
            true,
        ),
        (
            "a port is lost",
            &[with("::/0", 6, 0, 98), with("::/0", 6, 100, 65535)],
            &[with("::/1", 6, 0, 200)],
            false,
        ),
        ("opaque ports", &[opaque], &[opaque], true),
        ("ports are not opaque", &[with("10.1.0.0/16", 17, 5060, 5060)], &[opaque], false),
        ("all of one family", &[net("0.0.0.0/0")], &[net("0.0.0.0/1"), net("128.0.0.0/1")], true),
        ("the other family", &[net("0.0.0.0/0")], &[net("::/0")], false),
    ];
    for (what, new, old, expected) in rows {
        assert_eq!(covers_all(new, old), *expected, "{what}");
    }
}

proptest! {
    #[test]
    fn coverage_is_what_every_packet_says(
        new in prop::collection::vec((0u8..16, 0u8..16, 0u16..8, 0u16..8, any::<bool>()), 0..6),
        old in prop::collection::vec((0u8..16, 0u8..16, 0u16..8, 0u16..8, any::<bool>()), 0..3),
    ) {
        let selector = |&(a, b, p, q, udp): &(u8, u8, u16, u16, bool)| {
            let address = |octet| IpAddr::from([10, 0, 0, octet]);
            let ports = if udp { PortRange { first: p.min(q), last: p.max(q) } } else { PortRange::ANY };
            let protocol = udp.then_some(17);
            TrafficSelector::new(address(a.min(b)), address(a.max(b)), protocol, ports).expect("in order")
        };
        let new: Vec<_> = new.iter().map(selector).collect();
        let old: Vec<_> = old.iter().map(selector).collect();
        let matched = |list: &[TrafficSelector], address: u8, protocol, port| {
            list.iter().any(|selector| selector.contains([10, 0, 0, address].into(), protocol, port))
        };
        let packets = (0..16u8).flat_map(|address| (0..9u16).flat_map(move |port| [6u8, 17].map(|p| (address, p, port))));
        let lost = packets
            .into_iter()
            .any(|(a, protocol, port)| matched(&old, a, protocol, port) && !matched(&new, a, protocol, port));
        prop_assert_eq!(covers_all(&new, &old), !lost);
    }
}
