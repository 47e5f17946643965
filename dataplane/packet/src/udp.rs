//! UDP (RFC 768), and what a datagram of ESP's UDP port holds (RFC 3948).

use crate::checksum;
use crate::flow::{Flow, UDP};

/// Octets of the header.
pub const HEADER_LEN: usize = 8;

/// A datagram whose length field fits the octets given.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// The datagram at the front of `octets`; `None` where it is cut short or its length contradicts that.
    #[inline]
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let header = octets.first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        Some(Self { header, payload: octets.get(HEADER_LEN..len)? })
    }

    /// Source port.
    pub const fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    #[inline]
    pub const fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The checksum field; 0 over IPv4 means none.
    pub const fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// The datagram's payload.
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether the payload is ESP: longer than a NAT keepalive, and no non-ESP marker at its front
    /// (RFC 3948 §2).
    #[inline]
    pub fn holds_esp(&self) -> bool {
        self.payload.first_chunk::<4>().is_some_and(|marker| *marker != [0; 4])
    }
}

/// A header with checksum 0, which says that there is none.
#[inline]
pub const fn header(source_port: u16, destination_port: u16, payload_len: u16) -> [u8; HEADER_LEN] {
    let [s0, s1] = source_port.to_be_bytes();
    let [d0, d1] = destination_port.to_be_bytes();
    let [l0, l1] = payload_len.saturating_add(8).to_be_bytes();
    [s0, s1, d0, d1, l0, l1, 0, 0]
}

/// Writes the checksum of a whole datagram, header and payload, as IPv6 wants it.
pub fn write_checksum(flow: &Flow, datagram: &mut [u8]) {
    let pseudo = checksum::pseudo_header(flow, UDP, datagram.len());
    checksum::write(datagram, 6, pseudo, UDP);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_read_as_it_was_built() {
        let mut octets = header(4500, 10_000, 5).to_vec();
        octets.extend(b"\x00\x00\x01\x00!pad");
        let udp = Udp::parse(&octets).expect("whole");
        assert_eq!((udp.source_port(), udp.destination_port(), udp.checksum()), (4500, 10_000, 0));
        assert_eq!(udp.payload(), b"\x00\x00\x01\x00!");
        assert!(udp.holds_esp());
        for len in 0..13 {
            assert!(Udp::parse(&octets[..len]).is_none(), "{len} octets");
        }
        octets[5] = 7;
        assert!(Udp::parse(&octets).is_none(), "length below the header's");
    }

    #[test]
    fn ike_and_keepalives_are_not_esp() {
        for (payload, what) in [
            (&b"\0\0\0\0ike"[..], "IKE"),
            (b"\xff", "keepalive"),
            (b"", "nothing"),
            (b"\x01\0\0", "three octets"),
        ] {
            let len = u16::try_from(payload.len()).expect("short");
            let octets = [&header(4500, 4500, len)[..], payload].concat();
            assert!(!Udp::parse(&octets).expect("whole").holds_esp(), "{what}");
        }
    }
}
