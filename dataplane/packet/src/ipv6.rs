//! IPv6 (RFC 8200), and a bounded walk over its extension headers.

use crate::flow::{Flow, IpVersion};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Extension headers that are walked at most. RFC 8200 §4.1 recommends eight at the most; a longer chain
/// is an attempt to hide ports from policies, and malformed to us.
pub const EXTENSIONS_MAX: usize = 8;

/// A header that is whole, whose version is 6 and whose payload length fits the octets given.
/// A payload length of 0 (a jumbogram, RFC 2675) is taken literally.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    packet: &'a [u8],
    fixed: &'a [u8; HEADER_LEN],
}

impl<'a> Ipv6<'a> {
    /// The header at the front of `octets`; link padding may follow. `None` where it is cut short, of
    /// another version, or says more than there is.
    #[inline]
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let fixed = octets.first_chunk::<HEADER_LEN>()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let payload_len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        Some(Self { packet: octets.get(..HEADER_LEN + payload_len)?, fixed })
    }

    /// Octets of header and payload.
    #[inline]
    pub const fn total_len(&self) -> usize {
        self.packet.len()
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        (self.fixed[0] << 4) | (self.fixed[1] >> 4)
    }

    /// Flow label, 20 bits.
    pub const fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.fixed[1] & 0xf, self.fixed[2], self.fixed[3]])
    }

    /// Hop limit.
    pub const fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Addresses and the protocol found by [`Self::transport`]; ports are not filled in.
    #[inline]
    pub fn flow(&self, protocol: u8) -> Flow {
        let [_, _, _, _, _, _, _, _, addresses @ ..] = self.fixed;
        let (source, destination) = addresses.split_at(16);
        let number = |octets: &[u8]| octets.first_chunk().map_or(0, |octets| u128::from_be_bytes(*octets));
        Flow::between(IpVersion::V6, number(source), number(destination), protocol)
    }

    /// Walks the extension headers; `None` where one is cut short or there are more than
    /// [`EXTENSIONS_MAX`].
    #[inline]
    pub fn transport(&self) -> Option<Transport> {
        let mut transport = Transport {
            protocol: self.fixed[6],
            offset: HEADER_LEN,
            fragment_offset: 0,
            more_fragments: false,
        };
        for _ in 0..=EXTENSIONS_MAX {
            let at = transport.offset;
            let (next, len) = match transport.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let header = self.packet.get(at..)?.first_chunk::<8>()?;
                    (header[0], (usize::from(header[1]) + 1) * 8)
                }
                FRAGMENT => {
                    let header = self.packet.get(at..)?.first_chunk::<8>()?;
                    let field = u16::from_be_bytes([header[2], header[3]]);
                    transport.fragment_offset = usize::from(field & !7);
                    transport.more_fragments = field & 1 != 0;
                    (header[0], 8)
                }
                _ => return Some(transport),
            };
            transport.offset = at + len;
            if transport.offset > self.packet.len() {
                return None;
            }
            transport.protocol = next;
            if transport.fragment_offset != 0 {
                // What follows is the middle of something, not a header.
                return Some(transport);
            }
        }
        None
    }
}

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Protocol of the payload; in a later fragment, what its fragment header says comes next.
    pub protocol: u8,
    /// Where it begins in the packet.
    pub offset: usize,
    /// Octets of the fragmented part before this fragment's.
    pub fragment_offset: usize,
    /// More fragments follow.
    pub more_fragments: bool,
}

/// What goes into a fixed header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// Source address in wire order.
    pub source: [u8; 16],
    /// Destination address in wire order.
    pub destination: [u8; 16],
    /// Protocol of the payload.
    pub next_header: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label; the upper 12 bits are ignored.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Octets after the header.
    pub payload_len: u16,
}

impl Header {
    /// The header's octets.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut octets = [0; HEADER_LEN];
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0xf_ffff);
        octets[..4].copy_from_slice(&first.to_be_bytes());
        octets[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        octets[6] = self.next_header;
        octets[7] = self.hop_limit;
        octets[8..24].copy_from_slice(&self.source);
        octets[24..].copy_from_slice(&self.destination);
        octets
    }
}

/// Writes another traffic class into a header known to be whole.
#[inline]
pub fn set_traffic_class(packet: &mut [u8], traffic_class: u8) {
    if let Some([first, second]) = packet.first_chunk_mut::<2>() {
        *first = 0x60 | traffic_class >> 4;
        *second = (*second & 0xf) | traffic_class << 4;
    }
}

/// Takes one hop off the hop limit; false, and no change, where no hop is left.
#[inline]
#[must_use = "a packet without hops left must not go on"]
pub fn take_hop(packet: &mut [u8]) -> bool {
    match packet.get_mut(7) {
        Some(limit) if *limit > 1 => {
            *limit -= 1;
            true
        }
        _ => false,
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            source: [1; 16],
            destination: [2; 16],
            next_header,
            traffic_class: 0xb9,
            flow_label: 0xfff_abcde,
            hop_limit: 64,
            payload_len: u16::try_from(payload.len()).expect("short"),
        };
        [&header.to_bytes()[..], payload].concat()
    }

    #[test]
    fn header_is_read_as_it_was_built() {
        let octets = packet(17, b"abc");
        let view = Ipv6::parse(&octets).expect("whole");
        assert_eq!((view.traffic_class(), view.flow_label(), view.hop_limit()), (0xb9, 0xabcde, 64));
        assert_eq!(view.flow(17).source().to_string(), "101:101:101:101:101:101:101:101");
        assert_eq!(view.transport().map(|t| (t.protocol, t.offset)), Some((17, 40)));
        for len in 0..octets.len() {
            assert!(Ipv6::parse(&octets[..len]).is_none(), "{len} octets");
        }
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport() {
        let chain = [
            [43, 0, 0, 0, 0, 0, 0, 0],
            [60, 0, 0, 0, 0, 0, 0, 0],
            [44, 0, 0, 0, 0, 0, 0, 0],
            [50, 0, 0, 1, 0, 0, 0, 9],
        ]
        .concat();
        let octets = packet(HOP_BY_HOP, &[&chain[..], &[0; 8]].concat());
        let transport = Ipv6::parse(&octets).and_then(|view| view.transport()).expect("whole");
        assert_eq!(
            transport,
            Transport { protocol: 50, offset: 72, fragment_offset: 0, more_fragments: true }
        );
        for len in 1..chain.len() {
            let cut = packet(HOP_BY_HOP, &chain[..len]);
            assert_eq!(Ipv6::parse(&cut).expect("whole").transport(), None, "{len} octets of chain");
        }
    }

    #[test]
    fn later_fragment_ends_the_walk() {
        let octets = packet(FRAGMENT, &[60, 0, 0, 8 << 1, 0, 0, 0, 9, 255, 255]);
        let transport = Ipv6::parse(&octets).and_then(|view| view.transport()).expect("whole");
        assert_eq!(
            transport,
            Transport { protocol: 60, offset: 48, fragment_offset: 16, more_fragments: false }
        );
    }

    #[test]
    fn endless_chain_is_refused() {
        let long = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(EXTENSIONS_MAX + 1);
        assert_eq!(Ipv6::parse(&packet(DESTINATION_OPTIONS, &long)).expect("whole").transport(), None);
        let mut eight = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(EXTENSIONS_MAX);
        eight[8 * (EXTENSIONS_MAX - 1)] = 17;
        assert!(Ipv6::parse(&packet(DESTINATION_OPTIONS, &eight)).expect("whole").transport().is_some());
    }

    #[test]
    fn marks_and_hops_change_nothing_else() {
        let mut octets = packet(17, b"");
        set_traffic_class(&mut octets, 0x03);
        assert!(take_hop(&mut octets));
        let view = Ipv6::parse(&octets).expect("whole");
        assert_eq!((view.traffic_class(), view.flow_label(), view.hop_limit()), (0x03, 0xabcde, 63));
        octets[7] = 1;
        assert!(!take_hop(&mut octets));
    }

    proptest! {
        #[test]
        fn random_chains_never_panic_and_stay_inside(next in prop_oneof![Just(0u8), Just(43), Just(44), Just(60), any::<u8>()], payload in proptest::collection::vec(prop_oneof![Just(0u8), Just(60), Just(44), any::<u8>()], 0..120)) {
            let octets = packet(next, &payload);
            if let Some(transport) = Ipv6::parse(&octets).and_then(|view| view.transport()) {
                prop_assert!(transport.offset <= octets.len());
            }
        }
    }
}
