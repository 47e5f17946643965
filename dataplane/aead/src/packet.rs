//! Where the parts of an ESP packet lie, and what of it is nonce and AAD.

use crate::key::{Key, Kind};
use crate::suite::Layout;
use crate::verdict::OpenVerdict;

/// Octets of SPI and sequence number at the front of every ESP packet (RFC 4303 §2).
pub(crate) const HEADER_LEN: usize = 8;

/// The part of a packet that a suite encrypts: from the end of the IV to the start of the ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// First octet.
    pub(crate) start: usize,
    /// One past the last octet: where the ICV begins.
    pub(crate) end: usize,
}

impl Text {
    /// Where the text of a packet of `len` octets lies.
    ///
    /// # Errors
    /// [`OpenVerdict::Malformed`] where not even one aligned block fits, or where the text is not aligned.
    #[inline]
    pub(crate) fn locate(layout: Layout, len: usize) -> Result<Self, OpenVerdict> {
        let (start, icv_len) = (usize::from(layout.text_start), usize::from(layout.icv_len));
        let block_mask = usize::from(layout.block_mask);
        let fixed = start + icv_len;
        if len <= fixed + block_mask || (len - fixed) & block_mask != 0 {
            return Err(OpenVerdict::Malformed);
        }
        Ok(Self { start, end: len - icv_len })
    }
}

/// What packets have in common that are handled alike: with it, the masks, counters and lengths of one are those of all.
#[derive(Clone, Copy)]
pub(crate) struct PacketClass {
    /// Octets of the packet.
    pub(crate) packet_len: usize,
    /// Where its text lies.
    pub(crate) text: Text,
    kind: Kind,
    pub(crate) esn: bool,
}

impl PacketClass {
    /// Of a text of any place in a packet of so many octets.
    pub(crate) fn new(key: &Key, packet_len: usize, text: Text) -> Self {
        Self { packet_len, text, kind: key.kind, esn: key.esn }
    }

    /// Of an ESP packet that is long enough.
    #[inline(always)]
    pub(crate) fn of(key: &Key, packet: &[u8]) -> Self {
        let Layout { text_start, icv_len, .. } = key.layout;
        let text = Text { start: text_start.into(), end: packet.len() - usize::from(icv_len) };
        Self { packet_len: packet.len(), text, kind: key.kind, esn: key.esn }
    }

    /// Whether SPI, sequence number and IV come before the text as they are sent, and are all that belongs to it.
    #[inline(always)]
    pub(crate) fn is_sent(&self) -> bool {
        self.text.start != HEADER_LEN && !self.esn
    }

    /// Whether an ESP packet has this form.
    #[inline(always)]
    pub(crate) fn is_of(&self, key: &Key, packet: &[u8]) -> bool {
        packet.len() == self.packet_len && key.kind == self.kind
    }
}

/// The AAD of the combined modes: SPI and sequence number, 8 octets, or 12 with the high half of an ESN.
//= RFC 4106 §5
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aad {
    octets: [u8; 12],
    len: usize,
}

impl Aad {
    /// From the packet's header, and `seq_high` where the SA has extended sequence numbers.
    #[inline]
    pub(crate) fn new(header: [u8; HEADER_LEN], esn: bool, seq_high: u32) -> Self {
        let [s0, s1, s2, s3, q0, q1, q2, q3] = header;
        if esn {
            let [h0, h1, h2, h3] = seq_high.to_be_bytes();
            Self { octets: [s0, s1, s2, s3, h0, h1, h2, h3, q0, q1, q2, q3], len: 12 }
        } else {
            Self { octets: [s0, s1, s2, s3, q0, q1, q2, q3, 0, 0, 0, 0], len: 8 }
        }
    }

    /// The octets that count, and zeros behind them.
    #[inline]
    pub(crate) fn padded(&self) -> [u8; 16] {
        let mut block = [0; 16];
        block[..12].copy_from_slice(&self.octets);
        block
    }

    /// The octets that count.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The header of a packet that is known to be long enough.
#[inline]
pub(crate) fn header(packet: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&packet[..HEADER_LEN]);
    header
}

/// The IV of an implicit-IV suite: the 64-bit sequence number, with a zero high half where ESN is off.
//= RFC 8750 §4
#[inline]
pub(crate) fn implicit_iv(header: [u8; HEADER_LEN], esn: bool, seq_high: u32) -> u64 {
    let [.., q0, q1, q2, q3] = header;
    let high = if esn { u64::from(seq_high) << 32 } else { 0 };
    high | u64::from(u32::from_be_bytes([q0, q1, q2, q3]))
}

/// The 12-octet nonce of the combined modes: salt, then IV.
//= RFC 4106 §4
#[inline]
pub(crate) fn nonce(salt: [u8; 4], iv: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&iv.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    #[test]
    fn text_needs_one_aligned_block() {
        let gcm = |len| Text::locate(Suite::Aes128Gcm16.layout(), len);
        assert_eq!(gcm(36), Ok(Text { start: 16, end: 20 }));
        assert_eq!(gcm(35), Err(OpenVerdict::Malformed));
        assert_eq!(gcm(38), Err(OpenVerdict::Malformed));
        assert_eq!(gcm(0), Err(OpenVerdict::Malformed));
        let cbc = |len| Text::locate(Suite::Aes128CbcSha256.layout(), len);
        assert_eq!(cbc(56), Ok(Text { start: 24, end: 40 }));
        assert_eq!(cbc(60), Err(OpenVerdict::Malformed));
    }

    #[test]
    fn aad_puts_the_high_half_between_spi_and_sequence() {
        let header = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(Aad::new(header, false, 9).as_slice(), header);
        assert_eq!(Aad::new(header, true, 9).as_slice(), [1, 2, 3, 4, 0, 0, 0, 9, 5, 6, 7, 8]);
    }

    #[test]
    fn implicit_iv_ignores_the_high_half_without_esn() {
        let header = [0, 0, 0, 0, 0, 0, 0, 7];
        assert_eq!(implicit_iv(header, false, 3), 7);
        assert_eq!(implicit_iv(header, true, 3), (3 << 32) | 7);
    }
}
