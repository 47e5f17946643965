//! The Forwarding Information Base: longest-prefix match from destination to next hop.
//!
//! The housekeeper compiles a whole table from the kernel's routes and each worker swaps its copy. A
//! lookup is one array access per octet of the prefix that matched: four at most for IPv4. A multipath
//! route shares its destinations out over its next hops; the cache in front keeps what was chosen.

use core::net::IpAddr;

use pollux_packet::PortSlot;

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// An address of the gateway itself: to the host stack.
    Local,
    /// Out of an interface that is no port of ours: the host stack forwards it.
    Kernel,
    /// Out of a port, to a neighbour that is the destination itself.
    OnLink(PortSlot),
    /// Out of a port, to a router.
    Via(PortSlot, IpAddr),
    /// Nowhere: no route, or the kernel's route says unreachable, prohibit or blackhole.
    Unreachable,
}

/// One of the ways that a route has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedNextHop {
    /// Where to.
    pub next_hop: NextHop,
    /// How many destinations it takes, beside the weights of the route's other ways.
    pub weight: u16,
}

/// One route of the kernel, reduced to what forwarding needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; bits beyond the prefix are ignored.
    pub destination: IpAddr,
    /// Length of the prefix; more than the family's width makes the route void.
    pub prefix_len: u8,
    /// Where to. Of several ways each destination keeps to one, so that an SA's packets stay in order.
    pub ways: Vec<WeightedNextHop>,
}

impl Route {
    /// A route with one way.
    pub fn new(destination: IpAddr, prefix_len: u8, next_hop: NextHop) -> Self {
        Self { destination, prefix_len, ways: vec![WeightedNextHop { next_hop, weight: 1 }] }
    }
}

/// A compiled table.
#[derive(Debug)]
pub struct Fib {
    v4: Trie,
    v6: Trie,
    /// Each different list of ways once; the first is that of what has no route.
    ways: Vec<Box<[WeightedNextHop]>>,
}

impl Fib {
    /// Compiles `routes`. Of two routes to one prefix the earlier in the list is used.
    pub fn compile(routes: &[Route]) -> Self {
        let mut fib = Self { v4: Trie::new(), v6: Trie::new(), ways: vec![Box::default()] };
        let mut order: Vec<&Route> = routes.iter().collect();
        // A stable sort: among equals the later is inserted first and overwritten by the earlier.
        order.reverse();
        order.sort_by_key(|route| route.prefix_len);
        for route in order {
            let ways = fib.number_of(&route.ways);
            match route.destination {
                IpAddr::V4(v4) => fib.v4.insert(&v4.octets(), route.prefix_len, ways),
                IpAddr::V6(v6) => fib.v6.insert(&v6.octets(), route.prefix_len, ways),
            }
        }
        fib
    }

    /// The next hop for `destination`.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> NextHop {
        let ways = match destination {
            IpAddr::V4(v4) => self.v4.lookup(&v4.octets()),
            IpAddr::V6(v6) => self.v6.lookup(&v6.octets()),
        };
        match self.ways.get(ways as usize).map_or(&[] as &[WeightedNextHop], AsRef::as_ref) {
            [] => NextHop::Unreachable,
            [only] => only.next_hop,
            several => choose(several, destination),
        }
    }

    fn number_of(&mut self, ways: &[WeightedNextHop]) -> u32 {
        let known = self.ways.iter().rposition(|known| **known == *ways);
        let index = known.unwrap_or_else(|| {
            self.ways.push(ways.into());
            self.ways.len() - 1
        });
        u32::try_from(index).unwrap_or(0)
    }
}

/// The way of `destination`: always the same while the list is, and as many destinations for each as its weight says.
#[cold]
fn choose(ways: &[WeightedNextHop], destination: IpAddr) -> NextHop {
    let bits = match destination {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the hash")]
    let folded = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(23);
    let point = folded.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32;
    let total: u64 = ways.iter().map(|way| u64::from(way.weight)).sum();
    let mut at = (point * total) >> 32;
    for way in ways {
        match at.checked_sub(way.weight.into()) {
            Some(rest) => at = rest,
            None => return way.next_hop,
        }
    }
    NextHop::Unreachable
}

/// An entry is the number of a list of ways, or of a child node.
const CHILD: u32 = 1 << 31;

const FANOUT: usize = 256;

/// A leaf-pushed trie with a stride of one octet.
#[derive(Debug)]
struct Trie {
    entries: Vec<u32>,
}

impl Trie {
    fn new() -> Self {
        Self { entries: vec![0; FANOUT] }
    }

    /// Inserts a prefix. All shorter prefixes have been inserted, and none that is longer.
    fn insert(&mut self, octets: &[u8], prefix_len: u8, ways: u32) {
        if usize::from(prefix_len) > octets.len() * 8 {
            return;
        }
        let whole = usize::from(prefix_len.saturating_sub(1) / 8);
        let mut node = 0;
        for &octet in &octets[..whole] {
            node = self.child(node * FANOUT + usize::from(octet));
        }
        let bits_left = prefix_len - u8::try_from(whole * 8).unwrap_or(0);
        let span = 1usize << (8 - bits_left);
        let first = usize::from(octets[whole]) & !(span - 1);
        let start = node * FANOUT + first;
        self.entries[start..start + span].fill(ways);
    }

    /// The child below an entry, made from the entry's own ways where there is none yet.
    fn child(&mut self, at: usize) -> usize {
        let entry = self.entries[at];
        if entry & CHILD != 0 {
            return (entry & !CHILD) as usize;
        }
        let child = self.entries.len() / FANOUT;
        self.entries.resize(self.entries.len() + FANOUT, entry);
        self.entries[at] = CHILD | u32::try_from(child).unwrap_or(0);
        child
    }

    #[inline]
    fn lookup(&self, octets: &[u8]) -> u32 {
        let mut node = 0;
        for &octet in octets {
            let entry = self.entries[node * FANOUT + usize::from(octet)];
            if entry & CHILD == 0 {
                return entry;
            }
            node = (entry & !CHILD) as usize;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn route(destination: &str, prefix_len: u8, next_hop: NextHop) -> Route {
        Route::new(destination.parse().expect("an address"), prefix_len, next_hop)
    }

    #[test]
    fn longest_prefix_wins_whatever_the_order() {
        let gateway: IpAddr = "192.0.2.1".parse().expect("an address");
        let mut routes = [
            route("0.0.0.0", 0, NextHop::Via(PortSlot(0), gateway)),
            route("10.0.0.0", 8, NextHop::OnLink(PortSlot(1))),
            route("10.1.2.0", 23, NextHop::Kernel),
            route("10.1.2.3", 32, NextHop::Local),
            route("2001:db8::", 32, NextHop::OnLink(PortSlot(2))),
            route("2001:db8::1", 128, NextHop::Local),
        ];
        for _ in 0..routes.len() {
            routes.rotate_left(1);
            let fib = Fib::compile(&routes);
            let at = |text: &str| fib.lookup(text.parse().expect("an address"));
            assert_eq!(at("8.8.8.8"), NextHop::Via(PortSlot(0), gateway));
            assert_eq!(at("10.200.0.1"), NextHop::OnLink(PortSlot(1)));
            assert_eq!(at("10.1.3.255"), NextHop::Kernel);
            assert_eq!(at("10.1.2.3"), NextHop::Local);
            assert_eq!(at("2001:db8:5::"), NextHop::OnLink(PortSlot(2)));
            assert_eq!(at("2001:db8::1"), NextHop::Local);
            assert_eq!(at("2001:db9::1"), NextHop::Unreachable);
        }
    }

    #[test]
    fn the_first_of_two_routes_to_one_prefix_is_used() {
        let routes = [route("10.0.0.0", 8, NextHop::Kernel), route("10.0.0.0", 8, NextHop::Local)];
        assert_eq!(Fib::compile(&routes).lookup(Ipv4Addr::new(10, 0, 0, 1).into()), NextHop::Kernel);
    }

    #[test]
    fn a_prefix_longer_than_its_family_is_void() {
        let fib = Fib::compile(&[route("10.0.0.0", 33, NextHop::Local), route("::", 129, NextHop::Local)]);
        assert_eq!(fib.lookup(Ipv4Addr::new(10, 0, 0, 0).into()), NextHop::Unreachable);
        assert_eq!(fib.lookup(Ipv6Addr::UNSPECIFIED.into()), NextHop::Unreachable);
    }

    #[test]
    fn several_ways_share_the_destinations_by_weight_and_each_keeps_to_one() {
        let share = |slot, weight| WeightedNextHop { next_hop: NextHop::OnLink(PortSlot(slot)), weight };
        let ways = [share(0, 1), share(1, 3), share(2, 0)];
        for (destination, base) in [("10.0.0.0", 10 << 24), ("2001:db8::", 0x2001_0db8_u128 << 96)] {
            let routes = [Route { ways: ways.to_vec(), ..route(destination, 8, NextHop::Local) }];
            let (fib, again) = (Fib::compile(&routes), Fib::compile(&routes));
            let mut taken = [0; 3];
            for host in 0..4_000 {
                let destination = if destination.contains(':') {
                    Ipv6Addr::from_bits(base + host).into()
                } else {
                    Ipv4Addr::from_bits(u32::try_from(base + host).expect("32 bits")).into()
                };
                let way = fib.lookup(destination);
                assert_eq!(way, again.lookup(destination));
                let NextHop::OnLink(PortSlot(slot)) = way else { panic!("{way:?}") };
                taken[usize::from(slot)] += 1;
            }
            assert!(
                (800..1_200).contains(&taken[0]) && taken[2] == 0,
                "a quarter, the rest, none: {taken:?}"
            );
        }
        let nowhere = [Route { ways: vec![], ..route("10.0.0.0", 8, NextHop::Local) }];
        assert_eq!(Fib::compile(&nowhere).lookup(Ipv4Addr::new(10, 0, 0, 1).into()), NextHop::Unreachable);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lookup_agrees_with_a_linear_search(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            probes in proptest::collection::vec(any::<u32>(), 40),
        ) {
            let routes: Vec<Route> = prefixes.iter().enumerate().map(|(k, &(bits, prefix_len))| {
                let next_hop = NextHop::OnLink(PortSlot(u8::try_from(k).expect("few")));
                Route::new(Ipv4Addr::from_bits(bits).into(), prefix_len, next_hop)
            }).collect();
            let fib = Fib::compile(&routes);
            let near = prefixes.iter().map(|&(bits, _)| bits ^ 1);
            for probe in probes.iter().copied().chain(near) {
                let mut best: Option<(u8, NextHop)> = None;
                for (route, &(bits, len)) in routes.iter().zip(&prefixes) {
                    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                    if (probe ^ bits) & mask == 0 && best.is_none_or(|(longest, _)| len > longest) {
                        best = Some((len, route.ways[0].next_hop));
                    }
                }
                let want = best.map_or(NextHop::Unreachable, |(_, hop)| hop);
                prop_assert_eq!(fib.lookup(Ipv4Addr::from_bits(probe).into()), want);
            }
        }
    }
}
