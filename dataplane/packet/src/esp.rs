//! The ESP packet (RFC 4303 §2): its header, and its trailer once decrypted.

/// Octets of SPI and sequence number.
pub const HEADER_LEN: usize = 8;
/// Octets of pad length and next header.
pub const TRAILER_LEN: usize = 2;

/// SPI and sequence number as they stand in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Security Parameters Index, reserved values included.
    pub spi: u32,
    /// The low half of the sequence number.
    pub sequence: u32,
}

impl Header {
    /// The header at the front of `octets`; `None` where it is cut short.
    #[inline]
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let word = |at: usize| octets.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word));
        Some(Self { spi: word(0)?, sequence: word(4)? })
    }

    /// The header's octets.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        (u64::from(self.spi) << 32 | u64::from(self.sequence)).to_be_bytes()
    }
}

/// What the end of a decrypted payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Octets before the padding.
    pub payload_len: usize,
    /// Protocol of the payload.
    pub next_header: u8,
}

impl Trailer {
    /// The trailer at the end of `plaintext` (payload, padding, pad length, next header). `None` where the
    /// padding is longer than what there is, or not 1, 2, 3 … (RFC 4303 §2.4).
    #[inline]
    pub fn parse(plaintext: &[u8]) -> Option<Self> {
        let (rest, [pad_len, next_header]) = plaintext.split_last_chunk::<TRAILER_LEN>()?;
        let payload_len = rest.len().checked_sub(usize::from(*pad_len))?;
        let wrong = rest[payload_len..]
            .iter()
            .zip(1..=u8::MAX)
            .fold(0, |wrong, (octet, want)| wrong | (octet ^ want));
        if wrong != 0 {
            return None;
        }
        Some(Self { payload_len, next_header: *next_header })
    }

    /// Octets of padding that bring a payload and the trailer to a multiple of `block`, a power of two of
    /// at most 256.
    #[inline]
    pub const fn padding(payload_len: usize, block: usize) -> usize {
        (payload_len + TRAILER_LEN).wrapping_neg() & (block - 1)
    }

    /// Fills `room`, whose length is padding and trailer, with 1, 2, 3 …, the pad length and `next_header`.
    #[inline]
    pub fn write(room: &mut [u8], next_header: u8) {
        let Some((padding, trailer)) = room.split_last_chunk_mut::<TRAILER_LEN>() else { return };
        let mut pad_len = 0;
        for octet in padding {
            pad_len += 1;
            *octet = pad_len;
        }
        *trailer = [pad_len, next_header];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_or_too_long_padding_is_refused() {
        assert_eq!(Trailer::parse(&[b'p', 1, 2, 2, 4]), Some(Trailer { payload_len: 1, next_header: 4 }));
        for (plaintext, why) in [
            (&[1, 3, 2, 4][..], "wrong octet"),
            (&[1, 2, 3, 4], "padding longer than what is before it"),
            (&[4], "cut short"),
            (&[], "nothing"),
            (&[255, 4], "nothing to pad"),
        ] {
            assert_eq!(Trailer::parse(plaintext), None, "{why}");
        }
    }

    #[test]
    fn longest_padding_is_read() {
        let mut plaintext = vec![7; 4 + 255 + TRAILER_LEN];
        Trailer::write(&mut plaintext[4..], 41);
        assert_eq!(Trailer::parse(&plaintext), Some(Trailer { payload_len: 4, next_header: 41 }));
    }

    proptest! {
        #[test]
        fn trailer_is_read_as_it_was_written(len in 0usize..300, next in any::<u8>(), block in prop_oneof![Just(4usize), Just(16), Just(256)]) {
            let padding = Trailer::padding(len, block);
            let mut plaintext = vec![9; len + padding + TRAILER_LEN];
            Trailer::write(&mut plaintext[len..], next);
            prop_assert_eq!(plaintext.len() % block, 0);
            prop_assert!(padding < block);
            prop_assert_eq!(Trailer::parse(&plaintext), Some(Trailer { payload_len: len, next_header: next }));
        }
    }
}
