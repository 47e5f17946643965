use proptest::prelude::*;

use super::*;

fn sides(pairs: &HashSet<Pair>) -> (BTreeSet<IpNet>, BTreeSet<IpNet>) {
    (pairs.iter().map(|pair| pair.0).collect(), pairs.iter().map(|pair| pair.1).collect())
}

fn closed(list: &[(&str, &str)]) -> HashSet<Pair> {
    let pairs = canonical(&parsed(list)).expect("no mixed pair");
    let (locals, remotes) = sides(&pairs);
    closure(&pairs, &locals, &remotes).expect("a small set")
}

fn parsed(list: &[(&str, &str)]) -> Vec<Pair> {
    let parse = |prefix: &str| prefix.parse().expect("the table's prefix");
    list.iter().map(|(local, remote)| (parse(local), parse(remote))).collect()
}

#[test]
fn a_narrower_prefix_of_another_pair_inherits_the_wider_pairs() {
    let set = closed(&[("10.0.0.0/8", "0.0.0.0/0"), ("10.1.0.0/16", "192.168.0.0/16")]);
    let expected = parsed(&[
        ("10.0.0.0/8", "0.0.0.0/0"),
        ("10.0.0.0/8", "192.168.0.0/16"),
        ("10.1.0.0/16", "0.0.0.0/0"),
        ("10.1.0.0/16", "192.168.0.0/16"),
    ]);
    assert_eq!(set, expected.into_iter().collect());
}

#[test]
fn host_bits_and_duplicates_vanish() {
    let pairs = canonical(&parsed(&[("10.1.2.3/16", "fd00::1/8"); 0])).expect("nothing");
    assert!(pairs.is_empty());
    let pairs = canonical(&parsed(&[("10.1.2.3/16", "10.2.0.0/16"), ("10.1.0.0/16", "10.2.9.9/16")]));
    assert_eq!(pairs.expect("one family"), parsed(&[("10.1.0.0/16", "10.2.0.0/16")]).into_iter().collect());
}

#[test]
fn ten_thousand_tunnels_stay_ten_thousand_entries() {
    let net =
        |first: u32, n: u32| IpNet::new(IpAddr::V4((first << 24 | n << 8).into()), 24).expect("24 fits");
    let pairs: HashSet<Pair> = (0..10_000).map(|n| (net(10, n), net(11, n))).collect();
    let (locals, remotes) = sides(&pairs);
    assert_eq!(closure(&pairs, &locals, &remotes).expect("no nesting").len(), 10_000);
}

#[test]
fn nesting_that_multiplies_beyond_the_bound_is_refused() {
    let host = |first: u32, n: u32| IpNet::new(IpAddr::V4((first << 24 | n).into()), 32).expect("32 fits");
    let wide = |first: u32| IpNet::new(IpAddr::V4((first << 24).into()), 8).expect("8 fits");
    // (10/8, 11/8) over 1,100 locals and 1,000 remotes that other pairs brought.
    let mut pairs = HashSet::from([(wide(10), wide(11))]);
    pairs.extend((0..1_100).map(|n| (host(10, n), host(99, n))));
    pairs.extend((0..1_000).map(|n| (host(99, n), host(11, n))));
    let (locals, remotes) = sides(&pairs);
    assert!(matches!(closure(&pairs, &locals, &remotes), Err(SteerError::TooManyPairs)));
}

/// Addresses and prefixes that differ in few bits, so that prefixes nest.
fn address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0_u32..16).prop_map(|(is_v4, n)| {
        let bits = 0x0a00_0000 | (n & 3) | (n >> 2) << 20;
        if is_v4 { IpAddr::V4(bits.into()) } else { IpAddr::V6((u128::from(bits) << 96).into()) }
    })
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 0_u8..=32).prop_map(|(address, len)| IpNet::new(address, len).expect("at most 32").trunc())
}

fn longest(address: IpAddr, prefixes: &BTreeSet<IpNet>) -> Option<IpNet> {
    prefixes
        .iter()
        .filter(|prefix| prefix.contains(&address))
        .max_by_key(|prefix| prefix.prefix_len())
        .copied()
}

proptest! {
    /// Prefixes beyond those of the pairs are there while an update runs.
    #[test]
    fn two_longest_matches_and_the_closed_set_equal_a_walk_through_the_list(
        list in prop::collection::vec((prefix(), prefix()), 0..10),
        more in prop::collection::vec(prefix(), 0..6),
        packets in prop::collection::vec((address(), address()), 30),
    ) {
        let pairs: HashSet<Pair> = list.into_iter().filter(|(l, r)| l.addr().is_ipv4() == r.addr().is_ipv4()).collect();
        let (mut locals, mut remotes) = sides(&pairs);
        locals.extend(&more);
        remotes.extend(&more);
        let set = closure(&pairs, &locals, &remotes).expect("a small set");
        for (local, remote) in packets {
            let walked = pairs.iter().any(|(l, r)| l.contains(&local) && r.contains(&remote));
            let looked_up = match (longest(local, &locals), longest(remote, &remotes)) {
                (Some(local), Some(remote)) => set.contains(&(local, remote)),
                _ => false,
            };
            prop_assert_eq!(looked_up, walked, "{} → {}", local, remote);
        }
    }
}
