//! An SA's traffic selectors, compiled for comparison with a flow.

use arrayvec::ArrayVec;
use pollux_abi::layout::SELECTORS_MAX;
use pollux_abi::selector::{PortRange, Selectors, TrafficSelector};
use pollux_packet::{Flow, IpVersion};

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

/// Both sides' selectors. Without any, nothing is accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectorSet {
    local: ArrayVec<Range, SELECTORS_MAX>,
    remote: ArrayVec<Range, SELECTORS_MAX>,
}

impl SelectorSet {
    pub(crate) fn new(local: &Selectors, remote: &Selectors) -> Self {
        let compile = |list: &Selectors| list.as_slice().iter().map(Range::new).collect();
        Self { local: compile(local), remote: compile(remote) }
    }

    /// Whether a packet that leaves is the SA's: its source is local.
    #[inline]
    pub(crate) fn accepts_leaving(&self, flow: &Flow) -> bool {
        let local = |range: &Range| range.accepts(flow, flow.source_bits(), flow.source_port);
        let remote = |range: &Range| range.accepts(flow, flow.destination_bits(), flow.destination_port);
        self.local.iter().any(local) && self.remote.iter().any(remote)
    }

    /// Whether a packet that arrived is the SA's: its destination is local.
    #[inline]
    pub(crate) fn accepts_arriving(&self, flow: &Flow) -> bool {
        let local = |range: &Range| range.accepts(flow, flow.destination_bits(), flow.destination_port);
        let remote = |range: &Range| range.accepts(flow, flow.source_bits(), flow.source_port);
        self.local.iter().any(local) && self.remote.iter().any(remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(local: TrafficSelector, remote: TrafficSelector) -> SelectorSet {
        let list = |selector| Selectors::new(&[selector]).expect("one fits");
        SelectorSet::new(&list(local), &list(remote))
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
        let set = set(local, TrafficSelector::any_v4());
        let leaving = flow("10.1.2.3", "10.2.0.1", 17, 5060, 9);
        assert!(set.accepts_leaving(&leaving) && set.accepts_arriving(&leaving.reversed()));
        assert!(!set.accepts_arriving(&leaving) && !set.accepts_leaving(&leaving.reversed()));
        for (other, why) in [
            (flow("10.1.2.3", "10.2.0.1", 17, 5061, 9), "port"),
            (flow("10.1.2.3", "10.2.0.1", 6, 5060, 9), "protocol"),
            (flow("10.0.255.255", "10.2.0.1", 17, 5060, 9), "address"),
            (flow("::10.1.2.3", "::10.2.0.1", 17, 5060, 9), "version"),
            (leaving.without_ports(), "ports that can't be seen"),
        ] {
            assert!(!set.accepts_leaving(&other), "{why}");
        }
        assert!(!SelectorSet::default().accepts_leaving(&leaving), "no selectors accept nothing");
    }
}
