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
