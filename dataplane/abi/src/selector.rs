//! Traffic selectors: address, port and protocol ranges (RFC 4301 §4.4.1.1, RFC 7296 §3.13).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layout::SELECTORS_MAX;

/// An inclusive range of ports; for ICMP, type in the high and code in the low octet (RFC 7296 §3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port; below `first` only in [`Self::OPAQUE`].
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };
    /// The port must not be visible, as in fragments (RFC 7296 §3.13.1).
    pub const OPAQUE: Self = Self { first: u16::MAX, last: 0 };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether `port` lies in the range.
    #[inline]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether all of `other` lies in the range. [`Self::OPAQUE`] lies in itself and in [`Self::ANY`] alone.
    pub const fn covers(self, other: Self) -> bool {
        let opaque = other.first > other.last;
        let all_or_opaque = self.first > self.last || self.first == 0 && self.last == u16::MAX;
        self.first <= other.first && other.last <= self.last && (!opaque || all_or_opaque)
    }
}

/// One side's selector: addresses from `first` to `last` of one family, protocol and ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    first: IpAddr,
    last: IpAddr,
    /// IP protocol; `None` for any.
    pub protocol: Option<u8>,
    /// Ports of this side.
    pub ports: PortRange,
}

impl TrafficSelector {
    /// A selector over an address range; `None` where the families differ or the range is empty.
    pub fn new(first: IpAddr, last: IpAddr, protocol: Option<u8>, ports: PortRange) -> Option<Self> {
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return None;
        }
        Some(Self { first, last, protocol, ports })
    }

    /// Every protocol and port of a prefix; `None` where `prefix_len` is too long for the family.
    /// Bits of `address` beyond the prefix are ignored.
    pub fn prefix(address: IpAddr, prefix_len: u8) -> Option<Self> {
        let (first, last) = match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
                if prefix_len > 32 {
                    return None;
                }
                let bits = v4.to_bits();
                (Ipv4Addr::from_bits(bits & !host).into(), Ipv4Addr::from_bits(bits | host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
                if prefix_len > 128 {
                    return None;
                }
                let bits = v6.to_bits();
                (Ipv6Addr::from_bits(bits & !host).into(), Ipv6Addr::from_bits(bits | host).into())
            }
        };
        Self::new(first, last, None, PortRange::ANY)
    }

    /// One address, every protocol and port.
    pub fn host(address: IpAddr) -> Self {
        Self { first: address, last: address, protocol: None, ports: PortRange::ANY }
    }

    /// All of IPv4.
    pub fn any_v4() -> Self {
        Self {
            first: Ipv4Addr::UNSPECIFIED.into(),
            last: Ipv4Addr::BROADCAST.into(),
            protocol: None,
            ports: PortRange::ANY,
        }
    }

    /// All of IPv6.
    pub fn any_v6() -> Self {
        Self {
            first: Ipv6Addr::UNSPECIFIED.into(),
            last: Ipv6Addr::from_bits(u128::MAX).into(),
            protocol: None,
            ports: PortRange::ANY,
        }
    }

    /// First address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// Last address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether the selector is about IPv4.
    pub const fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether `address`, `protocol` and `port` match.
    #[inline]
    pub fn contains(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.contains_address(address)
            && self.protocol.is_none_or(|want| want == protocol)
            && self.ports.contains(port)
    }

    /// Whether `address` matches.
    #[inline]
    pub fn contains_address(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether everything that `other` matches is matched by `self` too.
    pub fn covers(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4()
            && self.first <= other.first
            && other.last <= self.last
            && (self.protocol.is_none() || self.protocol == other.protocol)
            && self.ports.covers(other.ports)
    }

    /// What both match, or `None` (narrowing, RFC 7296 §2.9).
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.is_ipv4() != other.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.or(b),
        };
        let ports = PortRange {
            first: self.ports.first.max(other.ports.first),
            last: self.ports.last.min(other.ports.last),
        };
        let both_opaque = self.ports == PortRange::OPAQUE && other.ports == PortRange::OPAQUE;
        if ports.first > ports.last && !both_opaque {
            return None;
        }
        Self::new(self.first.max(other.first), self.last.min(other.last), protocol, ports)
    }

    /// The prefix length where the address range is a prefix.
    pub fn prefix_len(&self) -> Option<u8> {
        let (differing, shared) = match (self.first, self.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let x = a.to_bits() ^ b.to_bits();
                (u128::from(x), x.leading_zeros())
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let x = a.to_bits() ^ b.to_bits();
                (x, x.leading_zeros())
            }
            _ => return None,
        };
        let is_mask = differing & differing.wrapping_add(1) == 0;
        let first_is_network = match self.first {
            IpAddr::V4(a) => u128::from(a.to_bits()) & differing == 0,
            IpAddr::V6(a) => a.to_bits() & differing == 0,
        };
        if is_mask && first_is_network { u8::try_from(shared).ok() } else { None }
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix_len() {
            Some(len) => write!(f, "{}/{len}", self.first)?,
            None => write!(f, "{}-{}", self.first, self.last)?,
        }
        if self.protocol.is_some() || self.ports != PortRange::ANY {
            f.write_str("[")?;
            match self.protocol {
                Some(protocol) => write!(f, "{protocol}")?,
                None => f.write_str("any")?,
            }
            match self.ports {
                PortRange::ANY => {}
                PortRange::OPAQUE => f.write_str("/opaque")?,
                PortRange { first, last } if first == last => write!(f, "/{first}")?,
                PortRange { first, last } => write!(f, "/{first}-{last}")?,
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The selectors of one policy: our side and the peer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SelectorPair {
    /// Our side: source of outbound, destination of inbound packets.
    pub local: TrafficSelector,
    /// The peer's side.
    pub remote: TrafficSelector,
}

/// Up to [`SELECTORS_MAX`] selectors of one side, without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Selectors {
    list: [TrafficSelector; SELECTORS_MAX],
    len: u8,
}

impl Selectors {
    /// Copies `list`; `None` where it is longer than [`SELECTORS_MAX`].
    pub fn new(list: &[TrafficSelector]) -> Option<Self> {
        let mut selectors = Self { list: [TrafficSelector::any_v4(); SELECTORS_MAX], len: 0 };
        selectors.list.get_mut(..list.len())?.copy_from_slice(list);
        selectors.len = u8::try_from(list.len()).ok()?;
        Some(selectors)
    }

    /// The selectors.
    #[inline]
    pub fn as_slice(&self) -> &[TrafficSelector] {
        &self.list[..usize::from(self.len)]
    }

    /// Whether any selector matches.
    #[inline]
    pub fn contains(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.as_slice().iter().any(|selector| selector.contains(address, protocol, port))
    }
}

impl Default for Selectors {
    fn default() -> Self {
        Self { list: [TrafficSelector::any_v4(); SELECTORS_MAX], len: 0 }
    }
}

impl fmt::Debug for Selectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> TrafficSelector {
        let (address, len) = text.split_once('/').expect("a prefix");
        TrafficSelector::prefix(address.parse().expect("address"), len.parse().expect("length"))
            .expect("prefix")
    }

    #[test]
    fn prefix_covers_its_addresses_and_no_others() {
        let selector = net("10.1.0.0/16");
        assert!(selector.contains("10.1.255.255".parse().expect("address"), 17, 5060));
        assert!(!selector.contains("10.2.0.0".parse().expect("address"), 17, 5060));
        assert!(!selector.contains("::a01:1".parse().expect("address"), 17, 5060));
        assert_eq!(net("0.0.0.0/0"), TrafficSelector::any_v4());
        assert_eq!(net("::/0"), TrafficSelector::any_v6());
        assert_eq!(TrafficSelector::prefix("10.0.0.0".parse().expect("address"), 33), None);
        assert_eq!(TrafficSelector::prefix("::".parse().expect("address"), 129), None);
    }

    #[test]
    fn display_reads_as_operators_write_it() {
        assert_eq!(net("10.1.2.3/16").to_string(), "10.1.0.0/16");
        let mut rtp = net("2001:db8::/64");
        rtp.protocol = Some(17);
        rtp.ports = PortRange { first: 16384, last: 32767 };
        assert_eq!(rtp.to_string(), "2001:db8::/64[17/16384-32767]");
        let range = TrafficSelector::new(
            "10.0.0.1".parse().expect("address"),
            "10.0.0.9".parse().expect("address"),
            None,
            PortRange::ANY,
        );
        assert_eq!(range.expect("range").to_string(), "10.0.0.1-10.0.0.9");
    }

    #[test]
    fn intersection_narrows_addresses_protocol_and_ports() {
        let mut ours = net("10.0.0.0/8");
        ours.protocol = Some(17);
        let mut theirs = net("10.1.0.0/16");
        theirs.ports = PortRange::single(5060);
        let narrowed = ours.intersection(&theirs).expect("they overlap");
        assert_eq!(narrowed.to_string(), "10.1.0.0/16[17/5060]");
        assert!(ours.covers(&narrowed) && theirs.covers(&narrowed));
        assert_eq!(ours.intersection(&net("11.0.0.0/8")), None);
        assert_eq!(ours.intersection(&net("::/0")), None);
    }
}
