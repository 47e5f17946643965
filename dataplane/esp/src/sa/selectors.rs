//! An SA's traffic selectors, compiled for comparison with a flow.

use arrayvec::ArrayVec;
use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::selector::{PortRange, Selectors, TrafficSelector};
use pollux_packet::{Flow, IpVersion, hint};

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u128,
    last: u128,
    ports: PortRange,
    protocol: Option<u8>,
    version: IpVersion,
}

impl Range {
    fn new(selector: &TrafficSelector) -> Self {
        Self {
            first: Flow::bits(selector.first()),
            last: Flow::bits(selector.last()),
            ports: selector.ports,
            protocol: selector.protocol,
            version: if selector.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 },
        }
    }

    #[inline]
    fn accepts(&self, flow: &Flow, address: u128, port: u16) -> bool {
        self.version == flow.version
            && self.first <= address
            && address <= self.last
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && (self.ports == PortRange::ANY
                || (flow.has_ports && self.ports.contains(port))
                || (!flow.has_ports && self.ports == PortRange::OPAQUE))
    }
}

/// The first selector of each side: most SAs have no others, and two cache lines are all that they touch.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct First {
    local: Option<Range>,
    remote: Option<Range>,
}

const _: () = assert!(size_of::<First>() == 128);

/// The other selectors.
#[derive(Clone, Debug, Default)]
struct More {
    local: ArrayVec<Range, { SELECTORS_MAX - 1 }>,
    remote: ArrayVec<Range, { SELECTORS_MAX - 1 }>,
}

impl More {
    fn clear(&mut self) {
        self.local.clear();
        self.remote.clear();
    }
}

/// Both sides' selectors of every SA of one direction. An SA without any accepts nothing.
#[derive(Debug)]
pub(crate) struct SelectorTable {
    first: Box<[First]>,
    more: Box<[More]>,
}

impl SelectorTable {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { first: vec![First::default(); capacity].into(), more: vec![More::default(); capacity].into() }
    }

    /// Sets the selectors of the SA at a place.
    pub(crate) fn set(&mut self, at: usize, local: &Selectors, remote: &Selectors) {
        let mut local = local.as_slice().iter().map(Range::new);
        let mut remote = remote.as_slice().iter().map(Range::new);
        self.first[at] = First { local: local.next(), remote: remote.next() };
        // In place: a list that is moved brings along what lay on the stack behind its end, and that may be a key.
        let more = &mut self.more[at];
        more.clear();
        more.local.extend(local);
        more.remote.extend(remote);
    }

    /// Takes the selectors of the SA at a place away.
    pub(crate) fn clear(&mut self, at: usize) {
        self.first[at] = First::default();
        self.more[at].clear();
    }

    /// Asks for the lines that a check reads.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize) {
        hint::prefetch_lines(&self.first[at], 2);
    }

    /// Whether a packet that leaves is the SA's: its source is local.
    #[inline]
    pub(crate) fn accepts_leaving(&self, at: usize, flow: &Flow) -> bool {
        self.accepts(
            at,
            |range| range.accepts(flow, flow.source_bits(), flow.source_port),
            |range| range.accepts(flow, flow.destination_bits(), flow.destination_port),
        )
    }

    /// Whether a packet that arrived is the SA's: its destination is local.
    #[inline]
    pub(crate) fn accepts_arriving(&self, at: usize, flow: &Flow) -> bool {
        self.accepts(
            at,
            |range| range.accepts(flow, flow.destination_bits(), flow.destination_port),
            |range| range.accepts(flow, flow.source_bits(), flow.source_port),
        )
    }

    #[inline]
    fn accepts(&self, at: usize, local: impl Fn(&Range) -> bool, remote: impl Fn(&Range) -> bool) -> bool {
        let first = &self.first[at];
        (first.local.as_ref().is_some_and(&local) || self.more[at].local.iter().any(&local))
            && (first.remote.as_ref().is_some_and(&remote) || self.more[at].remote.iter().any(&remote))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(local: &[TrafficSelector], remote: &[TrafficSelector]) -> SelectorTable {
        let list = |selectors| Selectors::new(selectors).expect("they fit");
        let mut table = SelectorTable::new(1);
        table.set(0, &list(local), &list(remote));
        table
    }

    fn flow(source: &str, destination: &str, protocol: u8, sport: u16, dport: u16) -> Flow {
        let address = |text: &str| text.parse().expect("an address");
        Flow::new(address(source), address(destination), protocol, sport, dport).expect("one version")
    }

    #[test]
    fn sides_are_not_mixed_up() {
        let mut local = TrafficSelector::prefix("10.1.0.0".parse().expect("address"), 16).expect("prefix");
        local.protocol = Some(17);
        local.ports = PortRange::single(5060);
        let mut set = table(&[local], &[TrafficSelector::any_v4()]);
        let leaving = flow("10.1.2.3", "10.2.0.1", 17, 5060, 9);
        assert!(set.accepts_leaving(0, &leaving) && set.accepts_arriving(0, &leaving.reversed()));
        assert!(!set.accepts_arriving(0, &leaving) && !set.accepts_leaving(0, &leaving.reversed()));
        for (other, why) in [
            (flow("10.1.2.3", "10.2.0.1", 17, 5061, 9), "port"),
            (flow("10.1.2.3", "10.2.0.1", 6, 5060, 9), "protocol"),
            (flow("10.0.255.255", "10.2.0.1", 17, 5060, 9), "address"),
            (flow("::10.1.2.3", "::10.2.0.1", 17, 5060, 9), "version"),
            (leaving.without_ports(), "ports that can't be seen"),
        ] {
            assert!(!set.accepts_leaving(0, &other), "{why}");
        }
        set.clear(0);
        assert!(!set.accepts_leaving(0, &leaving), "no selectors accept nothing");
    }

    #[test]
    fn any_of_several_selectors_is_enough() {
        let net = |third: u8| TrafficSelector::prefix([10, 1, third, 0].into(), 24).expect("prefix");
        let set = table(&[net(1), net(2), net(3)], &[net(7), net(8)]);
        let accepts =
            |source: &str, destination: &str| set.accepts_leaving(0, &flow(source, destination, 17, 1, 2));
        for source in ["10.1.1.1", "10.1.2.1", "10.1.3.1"] {
            assert!(accepts(source, "10.1.7.1") && accepts(source, "10.1.8.1"), "{source}");
            assert!(!accepts(source, "10.1.9.1"), "{source}");
        }
        assert!(!accepts("10.1.4.1", "10.1.7.1"));
    }
}
