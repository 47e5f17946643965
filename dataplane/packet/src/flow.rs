//! The 5-tuple that policies, selectors and routes are asked about.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP version of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum IpVersion {
    /// IPv4.
    #[default]
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// Addresses, protocol and ports of one packet.
///
/// Addresses are kept as numbers, IPv4 in the low 32 bits, so that a range check is two comparisons for
/// either version; the version is part of the key, so that an IPv4-mapped IPv6 address matches no IPv4 rule.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    source: u128,
    destination: u128,
    /// Source port; for ICMP type and code (type in the high octet), in both ports (RFC 7296 §3.13.1).
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol: the header after all IPv6 extension headers.
    pub protocol: u8,
    /// IP version.
    pub version: IpVersion,
    /// Whether the ports were there to be read: the protocol has ports and the packet is no later fragment.
    pub has_ports: bool,
}

impl Flow {
    /// A flow between two addresses; `None` where their families differ.
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        source_port: u16,
        destination_port: u16,
    ) -> Option<Self> {
        let version = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => IpVersion::V4,
            (IpAddr::V6(_), IpAddr::V6(_)) => IpVersion::V6,
            _ => return None,
        };
        let has_ports = Self::protocol_has_ports(protocol);
        let (source_port, destination_port) =
            if has_ports { (source_port, destination_port) } else { (0, 0) };
        Some(Self {
            source: Self::bits(source),
            destination: Self::bits(destination),
            source_port,
            destination_port,
            protocol,
            version,
            has_ports,
        })
    }

    /// The flow between two addresses given as numbers, without ports.
    #[inline]
    pub const fn between(version: IpVersion, source: u128, destination: u128, protocol: u8) -> Self {
        Self { source, destination, source_port: 0, destination_port: 0, protocol, version, has_ports: false }
    }

    /// Whether packets of `protocol` carry ports, or ICMP's type and code.
    #[inline]
    pub const fn protocol_has_ports(protocol: u8) -> bool {
        matches!(protocol, ICMP | TCP | UDP | DCCP | ICMPV6 | SCTP | UDP_LITE)
    }

    /// An address as a number: IPv4 in the low 32 bits.
    #[inline]
    pub const fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => v4.to_bits() as u128,
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// Source address as a number.
    #[inline]
    pub const fn source_bits(&self) -> u128 {
        self.source
    }

    /// Destination address as a number.
    #[inline]
    pub const fn destination_bits(&self) -> u128 {
        self.destination
    }

    /// Source address.
    pub const fn source(&self) -> IpAddr {
        self.address(self.source)
    }

    /// Destination address.
    pub const fn destination(&self) -> IpAddr {
        self.address(self.destination)
    }

    /// The flow of the answers.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// The flow as a later fragment shows it: without ports.
    #[must_use]
    pub const fn without_ports(&self) -> Self {
        Self { source_port: 0, destination_port: 0, has_ports: false, ..*self }
    }

    #[expect(clippy::cast_possible_truncation, reason = "an IPv4 flow holds 32-bit addresses")]
    const fn address(&self, bits: u128) -> IpAddr {
        match self.version {
            IpVersion::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpVersion::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source(), self.destination());
        match (self.has_ports, self.version) {
            (false, _) => write!(f, "{source} -> {destination} protocol {}", self.protocol),
            (true, IpVersion::V4) => write!(
                f,
                "{source}:{} -> {destination}:{} protocol {}",
                self.source_port, self.destination_port, self.protocol
            ),
            (true, IpVersion::V6) => write!(
                f,
                "[{source}]:{} -> [{destination}]:{} protocol {}",
                self.source_port, self.destination_port, self.protocol
            ),
        }
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP.
pub const DCCP: u8 = 33;
/// ESP.
pub const ESP: u8 = 50;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// No next header.
pub const NO_NEXT_HEADER: u8 = 59;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_as_numbers() {
        let (a, b): (IpAddr, IpAddr) = ("10.1.2.3".parse().expect("v4"), "192.0.2.1".parse().expect("v4"));
        let flow = Flow::new(a, b, UDP, 5060, 5061).expect("one family");
        assert_eq!((flow.source(), flow.destination()), (a, b));
        assert_eq!(flow.reversed().source_port, 5061);
        assert_eq!(flow.to_string(), "10.1.2.3:5060 -> 192.0.2.1:5061 protocol 17");
        assert_eq!(Flow::new(a, "::1".parse().expect("v6"), UDP, 1, 2), None);
    }

    #[test]
    fn mapped_v6_address_is_another_flow_than_its_v4_twin() {
        let v6: IpAddr = "::10.1.2.3".parse().expect("v6");
        let v4: IpAddr = "10.1.2.3".parse().expect("v4");
        assert_eq!(Flow::bits(v6), Flow::bits(v4));
        assert_ne!(Flow::new(v6, v6, TCP, 1, 2), Flow::new(v4, v4, TCP, 1, 2));
    }
}
