use super::*;
use crate::policy::Match;
use pollux_abi::selector::SelectorPair;
use proptest::prelude::*;

fn selector(text: &str) -> TrafficSelector {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    if let Some((first, last)) = text.split_once('-') {
        return TrafficSelector::new(address(first), address(last), None, PortRange::ANY).expect("a range");
    }
    let (prefix, len) = text.split_once('/').expect("a prefix");
    TrafficSelector::prefix(address(prefix), len.parse().expect("a length")).expect("a prefix")
}

fn spec(id: u32, direction: Direction, local: &str, remote: &str, action: PolicyAction) -> PolicySpec {
    let selectors = SelectorPair { local: selector(local), remote: selector(remote) };
    PolicySpec { id: PolicyId(id), direction, selectors, action }
}

fn flow(source: &str, destination: &str, protocol: u8, port: u16) -> Flow {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    Flow::new(address(source), address(destination), protocol, port, port).expect("one version")
}

fn verdict(found: Match<'_>) -> (u32, bool) {
    match found {
        Match::Entry(entry) => (entry.id.0, true),
        Match::Undecided(entry) => (entry.id.0, false),
        Match::None => (0, true),
    }
}

const OUT: Direction = Direction::Outbound;
const PROTECT: PolicyAction = PolicyAction::Protect(Reqid(7));

#[test]
fn first_match_wins_across_shapes_and_ranges() {
    let policies = CompiledPolicies::compile(&[
        spec(1, OUT, "10.0.0.0/8", "10.2.3.4/32", PolicyAction::Discard),
        spec(2, OUT, "10.1.0.5-10.1.0.9", "10.2.0.0/16", PolicyAction::Bypass),
        spec(3, OUT, "10.1.0.0/16", "10.2.0.0/16", PROTECT),
        spec(4, OUT, "10.1.0.0/24", "10.2.0.0/24", PolicyAction::Discard),
        spec(5, OUT, "0.0.0.0/0", "0.0.0.0/0", PolicyAction::Bypass),
        spec(6, OUT, "2001:db8::/32", "::/0", PROTECT),
        spec(9, Direction::Inbound, "0.0.0.0/0", "0.0.0.0/0", PolicyAction::Discard),
    ])
    .expect("a sound list");
    for (source, destination, id) in [
        ("10.1.0.1", "10.2.3.4", 1),
        ("10.1.0.5", "10.2.0.1", 2),
        ("10.1.0.9", "10.2.0.1", 2),
        ("10.1.0.4", "10.2.0.1", 3),
        ("10.1.0.10", "10.2.0.1", 3),
        ("10.1.255.255", "10.2.255.255", 3),
        ("192.0.2.1", "10.2.0.1", 5),
        ("2001:db8::1", "::1", 6),
        ("::ffff:10.1.0.4", "::ffff:10.2.0.1", 0),
    ] {
        assert_eq!(verdict(policies.outbound.leaving(&flow(source, destination, 17, 5))).0, id, "{source}");
    }
    assert_eq!(verdict(policies.outbound.arriving(&flow("10.2.0.1", "10.1.0.4", 17, 5))).0, 3);
    assert_eq!(verdict(policies.arriving(&flow("10.2.0.1", "10.1.0.4", 17, 5))).0, 9, "inbound comes first");
    assert!(policies.names(Reqid(7)) && !policies.names(Reqid(8)));
    assert_eq!(policies.len(), 7);
}

#[test]
fn lists_that_cannot_hold_are_refused() {
    let mixed = spec(3, OUT, "10.0.0.0/8", "::/0", PROTECT);
    assert_eq!(
        CompiledPolicies::compile(&[mixed]).map(|_| ()),
        Err(CompileError::MixedVersions { policy: PolicyId(3) })
    );
    let many = vec![spec(1, OUT, "10.0.0.0/8", "10.0.0.0/8", PROTECT); POLICIES_MAX + 1];
    assert_eq!(
        CompiledPolicies::compile(&many).map(|_| ()),
        Err(CompileError::TooMany { count: POLICIES_MAX + 1 })
    );
}

#[test]
fn fragments_never_bypass_on_suspicion() {
    let with_port = |id, action| {
        let mut policy = spec(id, OUT, "10.0.0.0/8", "10.0.0.0/8", action);
        policy.selectors.remote.ports = PortRange::single(5060);
        policy.selectors.remote.protocol = Some(17);
        policy
    };
    let rest = spec(2, OUT, "10.0.0.0/8", "10.0.0.0/8", PROTECT);
    let later = flow("10.0.0.1", "10.0.0.2", 17, 1).without_ports();
    let list = CompiledPolicies::compile(&[with_port(1, PolicyAction::Bypass), rest]).expect("sound");
    assert_eq!(verdict(list.outbound.leaving(&later)), (2, true), "the bypass is passed over");
    let list = CompiledPolicies::compile(&[with_port(1, PROTECT), rest]).expect("sound");
    assert_eq!(verdict(list.outbound.leaving(&later)), (1, false), "a protecting entry may match");
    assert_eq!(verdict(list.outbound.leaving(&flow("10.0.0.1", "10.0.0.2", 6, 5060))), (2, true));
    let mut opaque = with_port(1, PROTECT);
    opaque.selectors.local.ports = PortRange::OPAQUE;
    opaque.selectors.remote.ports = PortRange::OPAQUE;
    let list = CompiledPolicies::compile(&[opaque, rest]).expect("sound");
    assert_eq!(verdict(list.outbound.leaving(&later)), (1, true), "OPAQUE is for packets without ports");
    assert_eq!(verdict(list.outbound.leaving(&flow("10.0.0.1", "10.0.0.2", 17, 5060))), (2, true));
    let esp = flow("10.0.0.1", "10.0.0.2", 50, 0);
    assert_eq!(verdict(list.outbound.leaving(&esp)), (2, true), "a protocol without ports");
}

#[test]
fn thousands_of_policies_have_few_shapes() {
    let specs: Vec<PolicySpec> = (0..5_000u32)
        .map(|n| spec(n + 1, OUT, "10.0.0.0/8", &format!("172.16.{}.{}/32", n >> 8, n & 255), PROTECT))
        .collect();
    let policies = CompiledPolicies::compile(&specs).expect("sound");
    assert_eq!(policies.outbound.prefix_lengths.len(), 1);
    assert_eq!(policies.bundles.len(), 1);
    for n in [0u32, 1, 255, 256, 4_999] {
        let destination = format!("172.16.{}.{}", n >> 8, n & 255);
        assert_eq!(verdict(policies.outbound.leaving(&flow("10.9.9.9", &destination, 6, 80))).0, n + 1);
    }
}

fn any_selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        Just(PortRange::ANY),
        Just(PortRange::OPAQUE),
        (0u16..4, 0u16..4).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
    ];
    let protocol = prop_oneof![Just(None), Just(Some(17)), Just(Some(50))];
    (any::<bool>(), 0u32..64, 0u32..64, protocol, ports).prop_map(|(v6, a, b, protocol, ports)| {
        let address = |n: u32| -> IpAddr {
            if v6 {
                std::net::Ipv6Addr::from_bits(u128::from(n) << 90).into()
            } else {
                std::net::Ipv4Addr::from_bits(n).into()
            }
        };
        TrafficSelector::new(address(a.min(b)), address(a.max(b)), protocol, ports).expect("a range")
    })
}

/// The first entry in force for a packet, straight from the words of the rule.
fn model(specs: &[PolicySpec], flow: &Flow) -> (u32, bool) {
    let hidden = !flow.has_ports && Flow::protocol_has_ports(flow.protocol);
    for spec in specs {
        let sides = [
            (&spec.selectors.local, flow.source(), flow.source_port),
            (&spec.selectors.remote, flow.destination(), flow.destination_port),
        ];
        let address = sides.iter().all(|(ts, address, _)| {
            ts.contains_address(*address) && ts.protocol.is_none_or(|protocol| protocol == flow.protocol)
        });
        if !address {
            continue;
        }
        let sure = sides.iter().all(|(ts, _, port)| match ts.ports {
            PortRange::ANY => true,
            PortRange::OPAQUE => !flow.has_ports,
            range => flow.has_ports && range.contains(*port),
        });
        let needs = sides.iter().any(|(ts, ..)| ts.ports != PortRange::ANY && ts.ports != PortRange::OPAQUE);
        if sure {
            return (spec.id.0, true);
        }
        if needs && hidden && spec.action != PolicyAction::Bypass {
            return (spec.id.0, false);
        }
    }
    (0, true)
}

proptest! {
    #[test]
    fn lookup_equals_a_walk_over_the_list(
        list in proptest::collection::vec((any_selector(), any_selector(), 0u8..3), 0..12),
        packets in proptest::collection::vec((any::<bool>(), 0u32..64, 0u32..64, 0u16..5, 0u16..5, prop_oneof![Just(17u8), Just(50), Just(6)], any::<bool>()), 20),
    ) {
        let specs: Vec<PolicySpec> = (1u32..).zip(list).filter(|(_, (local, remote, _))| local.is_ipv4() == remote.is_ipv4()).map(|(id, (local, remote, action))| PolicySpec {
            id: PolicyId(id), direction: OUT, selectors: SelectorPair { local, remote },
            action: [PolicyAction::Bypass, PolicyAction::Discard, PROTECT][usize::from(action)],
        }).collect();
        let compiled = CompiledPolicies::compile(&specs).expect("sound");
        for (v6, a, b, sport, dport, protocol, fragment) in packets {
            let address = |n: u32| -> IpAddr {
                if v6 { std::net::Ipv6Addr::from_bits(u128::from(n) << 90).into() } else { std::net::Ipv4Addr::from_bits(n).into() }
            };
            let mut flow = Flow::new(address(a), address(b), protocol, sport, dport).expect("one version");
            if fragment {
                flow = flow.without_ports();
            }
            prop_assert_eq!(verdict(compiled.outbound.leaving(&flow)), model(&specs, &flow));
        }
    }

    #[test]
    fn range_is_cut_into_just_its_addresses(a in any::<u32>(), b in any::<u32>()) {
        let (first, last) = (a.min(b), a.max(b));
        let selector = TrafficSelector::new(std::net::Ipv4Addr::from_bits(first).into(), std::net::Ipv4Addr::from_bits(last).into(), None, PortRange::ANY).expect("a range");
        let mut next = u128::from(first);
        for prefix in prefixes(&selector) {
            prop_assert_eq!(prefix.bits, next);
            next += 1 << (32 - prefix.len);
        }
        prop_assert_eq!(next, u128::from(last) + 1);
    }
}
