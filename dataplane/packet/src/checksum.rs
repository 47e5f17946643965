//! The Internet checksum: whole sums (RFC 1071), increments (RFC 1624), pseudo headers, and the rule for
//! checksums that a sender left half made for its NIC to finish.

use crate::flow::{Flow, IpVersion, TCP, UDP};

/// A ones' complement sum under way: 16-bit words in wire order, not folded yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds octets; those of odd length count as if a zero followed.
    #[inline]
    #[must_use]
    pub fn octets(mut self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        let (halves, rest) = rest.as_chunks::<2>();
        for half in halves {
            self.0 += u64::from(u16::from_be_bytes(*half));
        }
        if let [last] = rest {
            self.0 += u64::from(*last) << 8;
        }
        self
    }

    /// Adds a 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// The sum in 16 bits, not complemented.
    #[inline]
    pub const fn fold(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        #[expect(clippy::cast_possible_truncation, reason = "three folds leave 16 bits")]
        let folded = sum as u16;
        folded
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// The sum of the pseudo header of UDP, TCP or ICMPv6 (RFC 768, RFC 9293 §3.1, RFC 8200 §8.1): addresses
/// of `flow`, `protocol` and the length of the transport header with its payload.
#[inline]
pub fn pseudo_header(flow: &Flow, protocol: u8, len: usize) -> Sum {
    // IPv4 addresses lie in the low 32 bits; the zeros before them add nothing.
    let sum =
        Sum::new().octets(&flow.source_bits().to_be_bytes()).octets(&flow.destination_bits().to_be_bytes());
    Sum(sum.0 + u64::from(protocol) + len as u64)
}

/// The checksum after a 16-bit word under it has changed from `old` to `new` (RFC 1624 eqn. 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = Sum(!checksum as u64 + !old as u64 + new as u64);
    !sum.fold()
}

/// Where the checksum lies in a transport header that has one that NICs finish.
#[inline]
const fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        UDP => Some(6),
        TCP => Some(16),
        _ => None,
    }
}

/// Completes a half-made checksum. Says whether it did.
///
/// A local sender whose device promises checksum offload leaves the folded sum of the pseudo header,
/// not complemented, in the checksum field of UDP and TCP. A field with just that value is recomputed in
/// full: a finished checksum has it once in 65,536 packets, and then the same value is written again.
/// 0 in UDP over IPv4 means "none" and stays. Call it for unfragmented packets alone: `transport` is the
/// whole of transport header and payload.
#[inline]
pub fn complete(flow: &Flow, transport: &mut [u8]) -> bool {
    let Some(offset) = checksum_offset(flow.protocol) else { return false };
    let Some(field) = transport.get(offset..).and_then(|rest| rest.first_chunk::<2>()) else { return false };
    let field = u16::from_be_bytes(*field);
    if field == 0 && flow.protocol == UDP && flow.version == IpVersion::V4 {
        return false;
    }
    let pseudo = pseudo_header(flow, flow.protocol, transport.len());
    if field != pseudo.fold() {
        return false;
    }
    write(transport, offset, pseudo, flow.protocol);
    true
}

/// Writes the checksum of `transport`, whose pseudo header sums to `pseudo`, at `offset`.
pub(crate) fn write(transport: &mut [u8], offset: usize, pseudo: Sum, protocol: u8) {
    let Some(field) = transport.get_mut(offset..offset + 2) else { return };
    field.fill(0);
    let mut checksum = Sum(pseudo.0 + Sum::new().octets(transport).0).checksum();
    // 0 would say that there is no checksum (RFC 768).
    if checksum == 0 && protocol == UDP {
        checksum = u16::MAX;
    }
    if let Some(field) = transport.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(version: IpVersion, protocol: u8) -> Flow {
        let address = |last: u8| match version {
            IpVersion::V4 => [10, 1, 0, last].into(),
            IpVersion::V6 => [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last].into(),
        };
        Flow::new(address(1), address(2), protocol, 1, 2).expect("one family")
    }

    fn verifies(flow: &Flow, transport: &[u8]) -> bool {
        Sum(pseudo_header(flow, flow.protocol, transport.len()).0 + Sum::new().octets(transport).0).fold()
            == u16::MAX
    }

    #[test]
    fn rfc_1071_example_sums() {
        let octets = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().octets(&octets).fold(), 0xddf2);
        assert_eq!(
            Sum::new().octets(&octets[..7]).fold(),
            Sum::new().octets(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0]).fold()
        );
    }

    #[test]
    fn rfc_1624_example_is_updated_right() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn udp_without_checksum_over_v4_stays_so() {
        let mut udp = [0, 1, 0, 2, 0, 9, 0, 0, b'x'];
        assert!(!complete(&flow(IpVersion::V4, UDP), &mut udp));
        assert_eq!(udp[6..8], [0, 0]);
    }

    #[test]
    fn finished_checksum_and_other_protocols_are_left_alone() {
        let flow_v6 = flow(IpVersion::V6, UDP);
        let mut udp = [0, 1, 0, 2, 0, 9, 0x12, 0x34, b'x'];
        assert!(!complete(&flow_v6, &mut udp));
        assert_eq!(udp[6..8], [0x12, 0x34]);
        assert!(!complete(&flow(IpVersion::V4, 132), &mut [0; 20]));
        assert!(!complete(&flow_v6, &mut [0; 7]), "too short to hold the field");
    }

    proptest! {
        #[test]
        fn half_made_checksum_is_completed(
            v6 in any::<bool>(), tcp in any::<bool>(), payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let version = if v6 { IpVersion::V6 } else { IpVersion::V4 };
            let (protocol, offset, header) = if tcp { (TCP, 16, 20) } else { (UDP, 6, 8) };
            let flow = flow(version, protocol);
            let mut transport = vec![7; header];
            transport.extend(payload);
            let half = pseudo_header(&flow, protocol, transport.len()).fold();
            transport[offset..offset + 2].copy_from_slice(&half.to_be_bytes());
            prop_assert!(complete(&flow, &mut transport));
            prop_assert!(verifies(&flow, &transport));
            let finished = transport.clone();
            complete(&flow, &mut transport);
            prop_assert_eq!(transport, finished, "completing twice changes nothing");
        }

        #[test]
        fn update_equals_a_new_sum(mut octets in proptest::collection::vec(any::<u8>(), 20..=20), new in any::<u16>()) {
            octets[10..12].fill(0);
            let before = Sum::new().octets(&octets).checksum();
            let old = u16::from_be_bytes([octets[8], octets[9]]);
            octets[8..10].copy_from_slice(&new.to_be_bytes());
            let after = Sum::new().octets(&octets).checksum();
            let updated = update(before, old, new);
            // The two zeros of ones' complement are the same sum.
            prop_assert!(updated == after || (updated ^ after == u16::MAX && (updated == 0 || after == 0)));
        }
    }
}
