//! IPv4 (RFC 791).

use crate::checksum::{self, Sum};
use crate::flow::{Flow, IpVersion};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// A header that is whole, whose version is 4 and whose lengths fit the octets given.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    packet: &'a [u8],
    fixed: &'a [u8; HEADER_LEN],
    header_len: usize,
    total_len: usize,
}

impl<'a> Ipv4<'a> {
    /// The header at the front of `octets`; more octets than its total length may follow (link padding).
    /// `None` where it is cut short, of another version, or contradicts itself.
    #[inline]
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let fixed = octets.first_chunk::<HEADER_LEN>()?;
        let header_len = usize::from(fixed[0] & 0xf) * 4;
        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len {
            return None;
        }
        Some(Self { packet: octets.get(..total_len)?, fixed, header_len, total_len })
    }

    /// Octets of header with options.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Octets of header and payload.
    #[inline]
    pub const fn total_len(&self) -> usize {
        self.total_len
    }

    /// DSCP and ECN.
    #[inline]
    pub const fn traffic_class(&self) -> u8 {
        self.fixed[1]
    }

    /// Time to live.
    pub const fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// Protocol of the payload.
    #[inline]
    pub const fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Don't fragment.
    #[inline]
    pub const fn dont_fragment(&self) -> bool {
        self.fixed[6] & DF != 0
    }

    /// More fragments follow.
    #[inline]
    pub const fn more_fragments(&self) -> bool {
        self.fixed[6] & MF != 0
    }

    /// Octets of the whole payload before this fragment's.
    #[inline]
    pub const fn fragment_offset(&self) -> usize {
        (u16::from_be_bytes([self.fixed[6], self.fixed[7]]) & OFFSET_MASK) as usize * 8
    }

    /// What follows the header, without link padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.packet[self.header_len..]
    }

    /// Addresses and protocol; ports are not filled in.
    #[inline]
    pub fn flow(&self) -> Flow {
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *self.fixed;
        Flow::between(
            IpVersion::V4,
            u128::from(u32::from_be_bytes([s0, s1, s2, s3])),
            u128::from(u32::from_be_bytes([d0, d1, d2, d3])),
            self.protocol(),
        )
    }

    /// Whether the header's checksum holds.
    pub fn checksum_holds(&self) -> bool {
        Sum::new().octets(&self.packet[..self.header_len]).fold() == u16::MAX
    }
}

/// Whether the checksum of the header at the front of `packet`, which is known to be whole, holds.
#[inline]
pub fn checksum_holds(packet: &[u8]) -> bool {
    let Some(fixed) = packet.first_chunk::<HEADER_LEN>() else { return false };
    // Nearly every header has no options: a sum of fixed length.
    if fixed[0] == 0x45 {
        return Sum::new().octets(fixed).fold() == u16::MAX;
    }
    Ipv4::parse(packet).is_some_and(|view| view.checksum_holds())
}

/// What goes into a header without options.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// Source address in wire order.
    pub source: [u8; 4],
    /// Destination address in wire order.
    pub destination: [u8; 4],
    /// Protocol of the payload.
    pub protocol: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification: unique among fragments of these addresses and protocol.
    pub identification: u16,
    /// Don't fragment.
    pub dont_fragment: bool,
    /// Octets of header and payload.
    pub total_len: u16,
}

impl Header {
    /// The header's octets with their checksum.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut octets = [0; HEADER_LEN];
        octets[0] = 0x45;
        octets[1] = self.traffic_class;
        octets[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        octets[4..6].copy_from_slice(&self.identification.to_be_bytes());
        octets[6] = if self.dont_fragment { DF } else { 0 };
        octets[8] = self.ttl;
        octets[9] = self.protocol;
        octets[12..16].copy_from_slice(&self.source);
        octets[16..20].copy_from_slice(&self.destination);
        let checksum = Sum::new().octets(&octets).checksum();
        octets[10..12].copy_from_slice(&checksum.to_be_bytes());
        octets
    }
}

/// Fills in what differs from packet to packet in a header that was built with zeros there; `checksum` is the
/// one it was built with.
#[inline]
pub fn fill_in(
    header: &mut [u8; HEADER_LEN],
    checksum: u16,
    traffic_class: u8,
    total_len: u16,
    identification: u16,
    dont_fragment: bool,
) {
    let fragment = if dont_fragment { u16::from(DF) << 8 } else { 0 };
    // The sum under the checksum is that of the other fields: only what is added now is missing from it.
    let sum = Sum::new().word(!checksum).word(u16::from(traffic_class)).word(total_len);
    let checksum = sum.word(identification).word(fragment).checksum();
    header[1] = traffic_class;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Writes another traffic class into a header known to be whole, and fixes its checksum.
#[inline]
pub fn set_traffic_class(packet: &mut [u8], traffic_class: u8) {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return };
    let old = u16::from_be_bytes([header[0], header[1]]);
    header[1] = traffic_class;
    fix(header, old, u16::from_be_bytes([header[0], traffic_class]));
}

/// Takes one hop off the TTL and fixes the checksum; false, and no change, where no hop is left.
#[inline]
#[must_use = "a packet without hops left must not go on"]
pub fn take_hop(packet: &mut [u8]) -> bool {
    let Some(header) = packet.first_chunk_mut::<HEADER_LEN>() else { return false };
    if header[8] <= 1 {
        return false;
    }
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] -= 1;
    fix(header, old, u16::from_be_bytes([header[8], header[9]]));
    true
}

/// Writes length and fragment fields of a fragment into its header, and its checksum anew.
/// `offset` counts octets and is a multiple of 8.
pub fn set_fragment(packet: &mut [u8], total_len: u16, offset: usize, more: bool) {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(header) = packet.get_mut(..header_len.max(HEADER_LEN)) else { return };
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    let units = u16::try_from(offset / 8).unwrap_or(OFFSET_MASK) & OFFSET_MASK;
    header[6..8].copy_from_slice(&(units | if more { u16::from(MF) << 8 } else { 0 }).to_be_bytes());
    header[10..12].fill(0);
    let checksum = Sum::new().octets(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[inline]
fn fix(header: &mut [u8; HEADER_LEN], old: u16, new: u16) {
    let checksum = checksum::update(u16::from_be_bytes([header[10], header[11]]), old, new);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

const DF: u8 = 0x40;
const MF: u8 = 0x20;
const OFFSET_MASK: u16 = 0x1fff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(payload_len: u16) -> Header {
        Header {
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            protocol: 17,
            traffic_class: 0xb8,
            ttl: 64,
            identification: 0x1234,
            dont_fragment: true,
            total_len: 20 + payload_len,
        }
    }

    #[test]
    fn header_is_read_as_it_was_built() {
        let mut packet = header(3).to_bytes().to_vec();
        packet.extend(b"abcpadding");
        let view = Ipv4::parse(&packet).expect("it is whole");
        assert_eq!((view.payload(), view.total_len(), view.header_len()), (&b"abc"[..], 23, 20));
        assert_eq!((view.traffic_class(), view.ttl(), view.protocol()), (0xb8, 64, 17));
        assert!(view.dont_fragment() && !view.more_fragments() && view.checksum_holds());
        assert_eq!(view.flow().source().to_string(), "10.0.0.1");
        assert_eq!(view.flow().destination().to_string(), "10.0.0.2");
    }

    #[test]
    fn contradicting_lengths_are_refused() {
        let packet = header(0).to_bytes();
        for len in 0..20 {
            assert!(Ipv4::parse(&packet[..len]).is_none(), "{len} octets");
        }
        for (at, octet, why) in [
            (0, 0x65, "version 6"),
            (0, 0x44, "header of 16"),
            (0, 0x46, "header beyond total"),
            (3, 21, "total beyond packet"),
            (3, 19, "total below header"),
        ] {
            let mut bad = packet;
            bad[at] = octet;
            assert!(Ipv4::parse(&bad).is_none(), "{why}");
        }
    }

    #[test]
    fn last_hop_is_not_taken() {
        let mut packet = Header { ttl: 2, ..header(0) }.to_bytes();
        assert!(take_hop(&mut packet));
        assert_eq!(packet[8], 1);
        assert!(Ipv4::parse(&packet).expect("whole").checksum_holds());
        assert!(!take_hop(&mut packet));
        assert_eq!(packet[8], 1);
    }

    proptest! {
        #[test]
        fn changed_fields_keep_the_checksum_whole(class in any::<u8>(), offset in 0usize..8000, more in any::<bool>(), id in any::<u16>()) {
            let mut packet = Header { identification: id, ..header(0) }.to_bytes();
            set_traffic_class(&mut packet, class);
            let view = Ipv4::parse(&packet).expect("whole");
            prop_assert!(view.checksum_holds() && view.traffic_class() == class);
            set_fragment(&mut packet, 20, offset * 8, more);
            let view = Ipv4::parse(&packet).expect("whole");
            prop_assert!(view.checksum_holds());
            prop_assert_eq!((view.fragment_offset(), view.more_fragments()), (offset * 8, more));
        }

        #[test]
        fn a_header_with_one_octet_changed_does_not_hold(words in 0usize..=10, at in 0usize..60, by in 1u8..) {
            let mut packet = header(0).to_bytes().to_vec();
            packet[0] += u8::try_from(words).expect("few");
            packet[3] = u8::try_from(20 + words * 4).expect("few");
            packet.resize(20 + words * 4, 1);
            packet[10..12].fill(0);
            let checksum = Sum::new().octets(&packet).checksum();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(checksum_holds(&packet));
            let at = at % packet.len();
            packet[at] ^= by;
            prop_assert!(!checksum_holds(&packet));
        }

        #[test]
        fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(view) = Ipv4::parse(&octets) {
                prop_assert!(view.header_len() + view.payload().len() == view.total_len());
                let _ = view.checksum_holds();
            }
        }
    }
}
