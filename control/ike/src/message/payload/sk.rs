//! Framing of the Encrypted payloads SK (RFC 7296 §3.14) and SKF (RFC 7383 §2.5).
//!
//! The content is IV, ciphertext and ICV; everything before it is authenticated. Opening and sealing
//! happen in place, in the datagram's own octets.

use thiserror::Error;

use crate::crypto::{CryptoError, SkCipher};
use crate::message::octets::Octets;
use crate::message::{Malformed, PayloadType};

/// Where the encrypted content of a message lies. Offsets only, so that the message can be opened in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encrypted {
    /// Type of the first payload inside; of a fragment other than the first one: none.
    pub first: PayloadType,
    /// Offset of the IV in the message.
    pub content: usize,
    /// Which part of the payloads is inside.
    pub extent: Extent,
}

/// How much of a message an encrypted payload carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// SK: all.
    Whole,
    /// SKF: one fragment.
    Fragment {
        /// Its number, from 1 to `total`.
        number: u16,
        /// How many there are.
        total: u16,
    },
}

/// Why an encrypted payload could not be opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// The ICV does not hold, or the content is too short to have one: drop the message in silence.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Authentic, and malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Encrypted {
    /// Reads the framing; `content` is the offset of `body` in the message.
    pub(in crate::message) fn parse(
        kind: PayloadType,
        first: PayloadType,
        body: &[u8],
        content: usize,
    ) -> Result<Self, Malformed> {
        if kind == PayloadType::Sk {
            return Ok(Self { first, content, extent: Extent::Whole });
        }
        let mut octets = Octets::new(kind, body);
        let number = octets.u16("fragment number")?;
        let total = octets.u16("total fragments")?;
        if number == 0 || number > total {
            return Err(Malformed::Field { kind, field: "fragment number", value: u32::from(number) });
        }
        Ok(Self { first, content: content + 4, extent: Extent::Fragment { number, total } })
    }

    /// Authenticates and decrypts `message` in place; returns the payloads inside, without padding.
    ///
    /// A message that fails is scrambled: keep nothing of it.
    pub fn open<'m>(&self, cipher: &dyn SkCipher, message: &'m mut [u8]) -> Result<&'m [u8], OpenError> {
        let plain: &[u8] = cipher.open(message, self.content)?;
        let (&pad_len, padded) = plain.split_last().ok_or(Malformed::Padding { claimed: 0, left: 0 })?;
        let end = padded.len().checked_sub(usize::from(pad_len));
        let end = end.ok_or(Malformed::Padding { claimed: pad_len, left: padded.len() })?;
        Ok(&padded[..end])
    }
}
