//! The ESP transforms and the sizes each of them puts on the wire.

use std::fmt;
use std::str::FromStr;

/// One ESP transform: cipher, integrity and, where RFCs leave a choice, the length of the ICV.
///
/// Names follow the proposal keywords that operators know from `swanctl.conf`; the suffix `iiv` marks the
/// implicit-IV forms of RFC 8750.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// AES-128-GCM, ICV of 16 octets (RFC 4106).
    Aes128Gcm16,
    /// AES-128-GCM, ICV of 12 octets (RFC 4106).
    Aes128Gcm12,
    /// AES-128-GCM, ICV of 8 octets (RFC 4106).
    Aes128Gcm8,
    /// AES-192-GCM, ICV of 16 octets (RFC 4106).
    Aes192Gcm16,
    /// AES-192-GCM, ICV of 12 octets (RFC 4106).
    Aes192Gcm12,
    /// AES-192-GCM, ICV of 8 octets (RFC 4106).
    Aes192Gcm8,
    /// AES-256-GCM, ICV of 16 octets (RFC 4106).
    Aes256Gcm16,
    /// AES-256-GCM, ICV of 12 octets (RFC 4106).
    Aes256Gcm12,
    /// AES-256-GCM, ICV of 8 octets (RFC 4106).
    Aes256Gcm8,
    /// AES-128-GCM with implicit IV (RFC 8750): one sender per SA only.
    Aes128Gcm16Iiv,
    /// AES-192-GCM with implicit IV (RFC 8750): one sender per SA only.
    Aes192Gcm16Iiv,
    /// AES-256-GCM with implicit IV (RFC 8750): one sender per SA only.
    Aes256Gcm16Iiv,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// ChaCha20-Poly1305 with implicit IV (RFC 8750): one sender per SA only.
    ChaCha20Poly1305Iiv,
    /// AES-128-GMAC, integrity without encryption (RFC 4543).
    Aes128Gmac,
    /// AES-192-GMAC, integrity without encryption (RFC 4543).
    Aes192Gmac,
    /// AES-256-GMAC, integrity without encryption (RFC 4543).
    Aes256Gmac,
    /// AES-128-CBC (RFC 3602) with HMAC-SHA2-256-128 (RFC 4868).
    Aes128CbcSha256,
    /// AES-128-CBC (RFC 3602) with HMAC-SHA2-384-192 (RFC 4868).
    Aes128CbcSha384,
    /// AES-128-CBC (RFC 3602) with HMAC-SHA2-512-256 (RFC 4868).
    Aes128CbcSha512,
    /// AES-192-CBC (RFC 3602) with HMAC-SHA2-256-128 (RFC 4868).
    Aes192CbcSha256,
    /// AES-192-CBC (RFC 3602) with HMAC-SHA2-384-192 (RFC 4868).
    Aes192CbcSha384,
    /// AES-192-CBC (RFC 3602) with HMAC-SHA2-512-256 (RFC 4868).
    Aes192CbcSha512,
    /// AES-256-CBC (RFC 3602) with HMAC-SHA2-256-128 (RFC 4868).
    Aes256CbcSha256,
    /// AES-256-CBC (RFC 3602) with HMAC-SHA2-384-192 (RFC 4868).
    Aes256CbcSha384,
    /// AES-256-CBC (RFC 3602) with HMAC-SHA2-512-256 (RFC 4868).
    Aes256CbcSha512,
    /// NULL encryption (RFC 2410) with HMAC-SHA2-256-128, as IMS phones ask for it.
    NullSha256,
    /// NULL encryption (RFC 2410) with HMAC-SHA2-384-192.
    NullSha384,
    /// NULL encryption (RFC 2410) with HMAC-SHA2-512-256.
    NullSha512,
}

/// What a suite does to the payload; sizes hang on it and on the ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// AES-GCM; the flag says that the IV is implicit.
    Gcm { implicit_iv: bool },
    /// ChaCha20-Poly1305; the flag says that the IV is implicit.
    ChaCha { implicit_iv: bool },
    /// AES-GMAC.
    Gmac,
    /// AES-CBC, then HMAC-SHA2.
    CbcHmac,
    /// HMAC-SHA2 alone.
    NullHmac,
}

/// Which SHA-2 an HMAC suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sha2 {
    Sha256,
    Sha384,
    Sha512,
}

/// One row of the table of suites: name, family, octets of cipher key, octets of ICV.
struct Row(&'static str, Family, usize, usize);

impl Suite {
    /// Every suite, in declaration order.
    pub const ALL: [Self; 29] = [
        Self::Aes128Gcm16,
        Self::Aes128Gcm12,
        Self::Aes128Gcm8,
        Self::Aes192Gcm16,
        Self::Aes192Gcm12,
        Self::Aes192Gcm8,
        Self::Aes256Gcm16,
        Self::Aes256Gcm12,
        Self::Aes256Gcm8,
        Self::Aes128Gcm16Iiv,
        Self::Aes192Gcm16Iiv,
        Self::Aes256Gcm16Iiv,
        Self::ChaCha20Poly1305,
        Self::ChaCha20Poly1305Iiv,
        Self::Aes128Gmac,
        Self::Aes192Gmac,
        Self::Aes256Gmac,
        Self::Aes128CbcSha256,
        Self::Aes128CbcSha384,
        Self::Aes128CbcSha512,
        Self::Aes192CbcSha256,
        Self::Aes192CbcSha384,
        Self::Aes192CbcSha512,
        Self::Aes256CbcSha256,
        Self::Aes256CbcSha384,
        Self::Aes256CbcSha512,
        Self::NullSha256,
        Self::NullSha384,
        Self::NullSha512,
    ];

    const fn row(self) -> Row {
        const GCM: Family = Family::Gcm { implicit_iv: false };
        const IIV: Family = Family::Gcm { implicit_iv: true };
        match self {
            Self::Aes128Gcm16 => Row("aes128gcm16", GCM, 16, 16),
            Self::Aes128Gcm12 => Row("aes128gcm12", GCM, 16, 12),
            Self::Aes128Gcm8 => Row("aes128gcm8", GCM, 16, 8),
            Self::Aes192Gcm16 => Row("aes192gcm16", GCM, 24, 16),
            Self::Aes192Gcm12 => Row("aes192gcm12", GCM, 24, 12),
            Self::Aes192Gcm8 => Row("aes192gcm8", GCM, 24, 8),
            Self::Aes256Gcm16 => Row("aes256gcm16", GCM, 32, 16),
            Self::Aes256Gcm12 => Row("aes256gcm12", GCM, 32, 12),
            Self::Aes256Gcm8 => Row("aes256gcm8", GCM, 32, 8),
            Self::Aes128Gcm16Iiv => Row("aes128gcm16iiv", IIV, 16, 16),
            Self::Aes192Gcm16Iiv => Row("aes192gcm16iiv", IIV, 24, 16),
            Self::Aes256Gcm16Iiv => Row("aes256gcm16iiv", IIV, 32, 16),
            Self::ChaCha20Poly1305 => Row("chacha20poly1305", Family::ChaCha { implicit_iv: false }, 32, 16),
            Self::ChaCha20Poly1305Iiv => {
                Row("chacha20poly1305iiv", Family::ChaCha { implicit_iv: true }, 32, 16)
            }
            Self::Aes128Gmac => Row("aes128gmac", Family::Gmac, 16, 16),
            Self::Aes192Gmac => Row("aes192gmac", Family::Gmac, 24, 16),
            Self::Aes256Gmac => Row("aes256gmac", Family::Gmac, 32, 16),
            Self::Aes128CbcSha256 => Row("aes128-sha256", Family::CbcHmac, 16, 16),
            Self::Aes128CbcSha384 => Row("aes128-sha384", Family::CbcHmac, 16, 24),
            Self::Aes128CbcSha512 => Row("aes128-sha512", Family::CbcHmac, 16, 32),
            Self::Aes192CbcSha256 => Row("aes192-sha256", Family::CbcHmac, 24, 16),
            Self::Aes192CbcSha384 => Row("aes192-sha384", Family::CbcHmac, 24, 24),
            Self::Aes192CbcSha512 => Row("aes192-sha512", Family::CbcHmac, 24, 32),
            Self::Aes256CbcSha256 => Row("aes256-sha256", Family::CbcHmac, 32, 16),
            Self::Aes256CbcSha384 => Row("aes256-sha384", Family::CbcHmac, 32, 24),
            Self::Aes256CbcSha512 => Row("aes256-sha512", Family::CbcHmac, 32, 32),
            Self::NullSha256 => Row("null-sha256", Family::NullHmac, 0, 16),
            Self::NullSha384 => Row("null-sha384", Family::NullHmac, 0, 24),
            Self::NullSha512 => Row("null-sha512", Family::NullHmac, 0, 32),
        }
    }

    /// The keyword of configuration and counters, e.g. `aes128gcm16`, `aes256-sha512`.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// Octets of cipher key, without the salt.
    pub const fn key_len(self) -> usize {
        self.row().2
    }

    /// Octets of salt that follow the cipher key in the keying material (RFC 4106 §8.1, RFC 7634 §2).
    pub const fn salt_len(self) -> usize {
        match self.family() {
            Family::Gcm { .. } | Family::ChaCha { .. } | Family::Gmac => 4,
            Family::CbcHmac | Family::NullHmac => 0,
        }
    }

    /// Octets of integrity key: the output size of the hash (RFC 4868 §2.1.1), or 0 for combined modes.
    pub const fn auth_key_len(self) -> usize {
        match self.sha2() {
            None => 0,
            Some(Sha2::Sha256) => 32,
            Some(Sha2::Sha384) => 48,
            Some(Sha2::Sha512) => 64,
        }
    }

    /// Octets of IV on the wire: 8, or 16 for CBC, or 0 where it is implicit or where nothing is encrypted.
    pub const fn iv_len(self) -> usize {
        match self.family() {
            Family::Gcm { implicit_iv: false } | Family::ChaCha { implicit_iv: false } | Family::Gmac => 8,
            Family::Gcm { .. } | Family::ChaCha { .. } | Family::NullHmac => 0,
            Family::CbcHmac => 16,
        }
    }

    /// Octets of ICV on the wire.
    pub const fn icv_len(self) -> usize {
        self.row().3
    }

    /// What the encrypted part must be a multiple of: 16 for CBC, else the 4 octets of RFC 4303 §2.4.
    pub const fn block_len(self) -> usize {
        match self.family() {
            Family::CbcHmac => 16,
            _ => 4,
        }
    }

    /// Whether the suite's IV is the sequence number (RFC 8750), which forbids several senders on one SA.
    pub const fn implicit_iv(self) -> bool {
        matches!(self.family(), Family::Gcm { implicit_iv: true } | Family::ChaCha { implicit_iv: true })
    }

    pub(crate) const fn family(self) -> Family {
        self.row().1
    }

    pub(crate) const fn sha2(self) -> Option<Sha2> {
        match (self.family(), self.icv_len()) {
            (Family::CbcHmac | Family::NullHmac, 16) => Some(Sha2::Sha256),
            (Family::CbcHmac | Family::NullHmac, 24) => Some(Sha2::Sha384),
            (Family::CbcHmac | Family::NullHmac, _) => Some(Sha2::Sha512),
            _ => None,
        }
    }
}

/// What the hot path asks of a suite, in one load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the text starts: after SPI, sequence number and IV.
    pub(crate) text_start: u8,
    /// Octets of ICV.
    pub(crate) icv_len: u8,
    /// The text's length is a multiple of this plus one.
    pub(crate) block_mask: u8,
    /// Which of our kernels runs it.
    pub(crate) path: Path,
}

/// Our own kernels, by what they do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Path {
    /// AES-GCM, by key length.
    Gcm128,
    Gcm192,
    Gcm256,
    ChaCha,
    Gmac,
    /// None: the RustCrypto crates.
    Portable,
}

static LAYOUTS: [Layout; Suite::ALL.len()] = {
    let mut layouts =
        [Layout { text_start: 0, icv_len: 0, block_mask: 0, path: Path::Portable }; Suite::ALL.len()];
    let mut i = 0;
    while i < layouts.len() {
        layouts[i] = Suite::ALL[i].make_layout();
        i += 1;
    }
    layouts
};

impl Suite {
    #[inline]
    pub(crate) fn layout(self) -> Layout {
        LAYOUTS[self as usize]
    }

    #[expect(clippy::cast_possible_truncation, reason = "no part of the layout is longer than 32 octets")]
    const fn make_layout(self) -> Layout {
        Layout {
            text_start: (crate::packet::HEADER_LEN + self.iv_len()) as u8,
            icv_len: self.icv_len() as u8,
            block_mask: self.block_len() as u8 - 1,
            path: match (self.family(), self.key_len()) {
                (Family::Gcm { .. }, 16) => Path::Gcm128,
                (Family::Gcm { .. }, 24) => Path::Gcm192,
                (Family::Gcm { .. }, _) => Path::Gcm256,
                (Family::ChaCha { .. }, _) => Path::ChaCha,
                (Family::Gmac, _) => Path::Gmac,
                (Family::CbcHmac | Family::NullHmac, _) => Path::Portable,
            },
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A suite name that no suite has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown ESP suite {name:?}: known are names such as aes128gcm16, chacha20poly1305, aes256-sha512")]
pub struct UnknownSuite {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(name: &str) -> Result<Self, UnknownSuite> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name() == name)
            .ok_or_else(|| UnknownSuite { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_found_by_its_own_name() {
        for (index, suite) in Suite::ALL.into_iter().enumerate() {
            assert_eq!(suite as usize, index);
            assert_eq!(suite.name().parse(), Ok(suite));
        }
        assert!("aes128gcm15".parse::<Suite>().is_err());
    }

    #[test]
    fn sizes_are_those_of_the_rfcs() {
        let sizes =
            |s: Suite| [s.key_len(), s.salt_len(), s.auth_key_len(), s.iv_len(), s.icv_len(), s.block_len()];
        for (suite, expected) in [
            (Suite::Aes128Gcm16, [16, 4, 0, 8, 16, 4]),
            (Suite::Aes256Gcm8, [32, 4, 0, 8, 8, 4]),
            (Suite::Aes192Gcm16Iiv, [24, 4, 0, 0, 16, 4]),
            (Suite::ChaCha20Poly1305, [32, 4, 0, 8, 16, 4]),
            (Suite::ChaCha20Poly1305Iiv, [32, 4, 0, 0, 16, 4]),
            (Suite::Aes256Gmac, [32, 4, 0, 8, 16, 4]),
            (Suite::Aes256CbcSha384, [32, 0, 48, 16, 24, 16]),
            (Suite::NullSha512, [0, 0, 64, 0, 32, 4]),
        ] {
            assert_eq!(sizes(suite), expected, "{suite}");
        }
    }
}
