//! Frames octet by octet, without checksums: the program looks at none.

use std::net::IpAddr;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ESP: u8 = 50;
pub(crate) const AH: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const NO_NEXT: u8 = 59;
pub(crate) const DEST_OPTIONS: u8 = 60;

/// An Ethernet frame to a unicast address.
pub(crate) fn ether(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ether_to([2, 0, 0, 0, 0, 1], ethertype, payload)
}

pub(crate) fn ether_to(destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &[2, 0, 0, 0, 0, 2], &ethertype.to_be_bytes(), payload].concat()
}

/// The same frame to another MAC address.
pub(crate) fn to_mac(destination: [u8; 6], frame: &[u8]) -> Vec<u8> {
    [&destination[..], &frame[6..]].concat()
}

/// Puts tags of VLAN 100, outermost first, into a frame.
pub(crate) fn tag(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    tag_with(frame, tags, 100)
}

/// Puts tags with this control information (priority, DEI, VID), outermost first, into a frame.
pub(crate) fn tag_with(frame: &[u8], tags: &[u16], tci: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for tpid in tags {
        tagged.extend_from_slice(&tpid.to_be_bytes());
        tagged.extend_from_slice(&tci.to_be_bytes());
    }
    tagged.extend_from_slice(&frame[12..]);
    tagged
}

/// What a row may change in an IP header.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    /// Flags and offset of IPv4.
    pub(crate) frag: u16,
    /// IPv4 header length in words; the options are no-operations.
    pub(crate) ihl: u8,
}

impl Header {
    pub(crate) const fn of(protocol: u8) -> Self {
        Self { protocol, hop_limit: 64, frag: 0x4000, ihl: 5 }
    }
}

/// A frame with an IP packet of the version of its addresses.
pub(crate) fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_with(source, destination, Header::of(protocol), payload)
}

pub(crate) fn ip_with(source: &str, destination: &str, header: Header, payload: &[u8]) -> Vec<u8> {
    let source: IpAddr = source.parse().expect("the table's address");
    let destination: IpAddr = destination.parse().expect("the table's address");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let options = usize::from(header.ihl.saturating_sub(5)) * 4;
            let total = u16::try_from(20 + options + payload.len()).expect("a short packet");
            let mut packet = vec![0x40 | header.ihl, 0];
            packet.extend_from_slice(&total.to_be_bytes());
            packet.extend_from_slice(&[0, 1]);
            packet.extend_from_slice(&header.frag.to_be_bytes());
            packet.extend_from_slice(&[header.hop_limit, header.protocol, 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            packet.resize(20 + options, 1);
            packet.extend_from_slice(payload);
            ether(IPV4, &packet)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(payload.len()).expect("a short packet");
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(&[header.protocol, header.hop_limit]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            packet.extend_from_slice(payload);
            ether(IPV6, &packet)
        }
        _ => panic!("mixed versions: {source} {destination}"),
    }
}

/// An IPv6 packet with extension headers of `(type, length in octets)` before `protocol`.
pub(crate) fn ip6_extended(
    source: &str,
    destination: &str,
    chain: &[(u8, usize)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    for (place, &(kind, len)) in chain.iter().enumerate() {
        let next = chain.get(place + 1).map_or(protocol, |&(kind, _)| kind);
        let start = body.len();
        let units = u8::try_from(len / 8 - 1).expect("a header below 2,048 octets");
        // AH counts in words and less two; a fragment header has no length.
        let length_octet = match kind {
            AH => u8::try_from(len / 4 - 2).expect("a short AH"),
            FRAGMENT => 0,
            _ => units,
        };
        body.extend_from_slice(&[next, length_octet]);
        body.resize(start + len, 0);
    }
    body.extend_from_slice(payload);
    ip(source, destination, chain.first().map_or(protocol, |&(kind, _)| kind), &body)
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("a short datagram");
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

pub(crate) fn tcp(source: u16, destination: u16) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.resize(20, 0);
    segment
}

/// An ESP packet with some ciphertext.
pub(crate) fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &7_u32.to_be_bytes(), &[0xa5; 48]].concat()
}
