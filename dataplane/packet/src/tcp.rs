//! TCP (RFC 9293): as much as a gateway needs.

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;

/// A segment whose header is whole.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    header: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// The segment at the front of `octets`; `None` where its header is cut short or contradicts itself.
    pub fn parse(octets: &'a [u8]) -> Option<Self> {
        let len = usize::from(octets.get(12)? >> 4) * 4;
        if len < HEADER_LEN {
            return None;
        }
        Some(Self { header: octets.get(..len)? })
    }

    /// Octets of header with options.
    pub const fn header_len(&self) -> usize {
        self.header.len()
    }

    /// Whether the segment opens a connection.
    pub fn is_syn(&self) -> bool {
        self.header[13] & 0x02 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_with_its_options_or_refused() {
        let mut segment = [0u8; 28];
        segment[12] = 6 << 4;
        segment[13] = 0x02;
        let view = Tcp::parse(&segment).expect("whole");
        assert_eq!((view.header_len(), view.is_syn()), (24, true));
        for len in 0..24 {
            assert!(Tcp::parse(&segment[..len]).is_none(), "{len} octets");
        }
        segment[12] = 4 << 4;
        assert!(Tcp::parse(&segment).is_none(), "a header of 16");
    }
}
