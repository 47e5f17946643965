//! Ethernet II frames, and the VLAN tags before what they carry (IEEE 802.1Q, 802.1ad).

/// Octets of an untagged Ethernet header.
pub const HEADER_LEN: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const OLD_SERVICE_VLAN: u16 = 0x9100;
/// Tags that are looked past: QinQ has two; more are nobody's network.
const TAGS_MAX: u8 = 2;
const TAG_LEN: usize = 4;
/// The VLAN's number in a tag; the other bits are priority and drop eligibility.
const VID_MASK: u16 = 0x0fff;

/// What an Ethernet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType of the payload, past any tags.
    pub ethertype: u16,
    /// Octets before the payload.
    pub len: usize,
    /// VLAN tags passed.
    pub tags: u8,
    /// Whether one of the tags names a VLAN. A tag of VID 0 has a priority alone, and the frame is as one without it
    /// (IEEE 802.1Q §6.9).
    pub in_vlan: bool,
}

impl Link {
    /// Reads the header at the front of `frame`; `None` where it is cut short or tagged more than twice.
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut link = Self { ethertype: u16_at(frame, 12)?, len: HEADER_LEN, tags: 0, in_vlan: false };
        while matches!(link.ethertype, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN) {
            if link.tags == TAGS_MAX {
                return None;
            }
            link.in_vlan |= u16_at(frame, link.len)? & VID_MASK != 0;
            link.ethertype = u16_at(frame, link.len + 2)?;
            link.len += TAG_LEN;
            link.tags += 1;
        }
        Some(link)
    }
}

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

/// The header of an untagged frame.
#[inline]
pub fn header(destination: Mac, source: Mac, ethertype: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    header
}

#[inline]
fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_passed_and_counted() {
        let plain = header(Mac([1; 6]), Mac([2; 6]), IPV6);
        assert_eq!(Link::parse(&plain), Some(Link { ethertype: IPV6, len: 14, tags: 0, in_vlan: false }));
        let mut frame = plain[..12].to_vec();
        frame.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0]);
        assert_eq!(Link::parse(&frame), Some(Link { ethertype: IPV4, len: 22, tags: 2, in_vlan: true }));
        for len in 0..frame.len() {
            assert_eq!(Link::parse(&frame[..len]), None, "{len} octets");
        }
        frame.splice(12..12, [0x91, 0, 0, 3]);
        assert_eq!(Link::parse(&frame), None, "three tags");
        let mut frame = plain[..12].to_vec();
        frame.extend([0x81, 0, 0xe0, 0, 8, 0]);
        assert_eq!(
            Link::parse(&frame),
            Some(Link { ethertype: IPV4, len: 18, tags: 1, in_vlan: false }),
            "a priority tag"
        );
    }
}
