//! The algorithms of IKE SAs: what RFC 8247 lets us offer, with IANA numbers and sizes.

use core::fmt;

macro_rules! algorithms {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them, strongest habit first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name as swanctl users write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

algorithms! {
    /// Encryption of SK payloads.
    Encryption {
        /// AES-GCM, 256-bit key, 16-octet ICV (RFC 5282).
        Aes256Gcm16 = "aes256gcm16",
        /// AES-GCM, 192-bit key.
        Aes192Gcm16 = "aes192gcm16",
        /// AES-GCM, 128-bit key.
        Aes128Gcm16 = "aes128gcm16",
        /// ChaCha20-Poly1305, 256-bit key, 16-octet ICV (RFC 7634).
        ChaCha20Poly1305 = "chacha20poly1305",
        /// AES-CBC, 256-bit key (RFC 3602).
        Aes256Cbc = "aes256",
        /// AES-CBC, 192-bit key.
        Aes192Cbc = "aes192",
        /// AES-CBC, 128-bit key.
        Aes128Cbc = "aes128",
    }
}

algorithms! {
    /// Integrity of SK payloads under AES-CBC (RFC 4868).
    Integrity {
        /// AUTH_HMAC_SHA2_512_256.
        HmacSha512 = "sha512",
        /// AUTH_HMAC_SHA2_384_192.
        HmacSha384 = "sha384",
        /// AUTH_HMAC_SHA2_256_128.
        HmacSha256 = "sha256",
    }
}

algorithms! {
    /// Pseudorandom functions (RFC 4868).
    Prf {
        /// PRF_HMAC_SHA2_512.
        HmacSha512 = "prfsha512",
        /// PRF_HMAC_SHA2_384.
        HmacSha384 = "prfsha384",
        /// PRF_HMAC_SHA2_256.
        HmacSha256 = "prfsha256",
    }
}

algorithms! {
    /// Key exchange methods (RFC 3526, RFC 5903, RFC 8031).
    KeMethod {
        /// Curve25519, group 31.
        X25519 = "x25519",
        /// NIST P-256, group 19.
        Ecp256 = "ecp256",
        /// NIST P-384, group 20.
        Ecp384 = "ecp384",
        /// NIST P-521, group 21.
        Ecp521 = "ecp521",
        /// 2048-bit MODP, group 14.
        Modp2048 = "modp2048",
        /// 3072-bit MODP, group 15.
        Modp3072 = "modp3072",
        /// 4096-bit MODP, group 16.
        Modp4096 = "modp4096",
    }
}

/// How the IV of an SK payload comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IvRule {
    /// A number that never repeats under a key, 8 octets.
    Counter,
    /// 16 octets that cannot be guessed.
    Random,
}

impl Encryption {
    /// Transform id of type ENCR.
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes256Gcm16 | Self::Aes192Gcm16 | Self::Aes128Gcm16 => 20,
            Self::ChaCha20Poly1305 => 28,
            Self::Aes256Cbc | Self::Aes192Cbc | Self::Aes128Cbc => 12,
        }
    }

    /// Octets of key, without salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes256Gcm16 | Self::Aes256Cbc | Self::ChaCha20Poly1305 => 32,
            Self::Aes192Gcm16 | Self::Aes192Cbc => 24,
            Self::Aes128Gcm16 | Self::Aes128Cbc => 16,
        }
    }

    /// Bits of key, as the Key Length attribute says them; `None` where there is no such attribute, because the
    /// algorithm has one length only (RFC 7634 §4).
    pub const fn key_bits(self) -> Option<u16> {
        match self {
            Self::Aes256Gcm16 | Self::Aes256Cbc => Some(256),
            Self::Aes192Gcm16 | Self::Aes192Cbc => Some(192),
            Self::Aes128Gcm16 | Self::Aes128Cbc => Some(128),
            Self::ChaCha20Poly1305 => None,
        }
    }

    /// The algorithm of a transform.
    pub fn from_id(id: u16, key_bits: Option<u16>) -> Option<Self> {
        Self::ALL.iter().copied().find(|this| this.id() == id && this.key_bits() == key_bits)
    }

    /// Whether it authenticates too, so that there is no integrity transform.
    pub const fn is_combined(self) -> bool {
        matches!(self, Self::Aes256Gcm16 | Self::Aes192Gcm16 | Self::Aes128Gcm16 | Self::ChaCha20Poly1305)
    }

    /// Octets of SK_e: the key, and four octets of salt for combined modes (RFC 5282 §7.1, RFC 7634 §3).
    pub const fn key_material_len(self) -> usize {
        let salt = if self.is_combined() { 4 } else { 0 };
        self.key_len() + salt
    }

    /// How its IVs come about.
    pub const fn iv_rule(self) -> IvRule {
        if self.is_combined() { IvRule::Counter } else { IvRule::Random }
    }
}

impl Integrity {
    /// Transform id of type INTEG.
    pub const fn id(self) -> u16 {
        match self {
            Self::HmacSha256 => 12,
            Self::HmacSha384 => 13,
            Self::HmacSha512 => 14,
        }
    }

    /// The algorithm of a transform.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|this| this.id() == id)
    }

    /// Octets of SK_a.
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Octets of ICV: half a MAC.
    pub const fn icv_len(self) -> usize {
        self.key_len() / 2
    }

    /// The PRF of the same hash, which is meant where a proposal names no PRF.
    pub const fn prf(self) -> Prf {
        match self {
            Self::HmacSha256 => Prf::HmacSha256,
            Self::HmacSha384 => Prf::HmacSha384,
            Self::HmacSha512 => Prf::HmacSha512,
        }
    }
}

impl Prf {
    /// The longest output.
    pub const LEN_MAX: usize = 64;

    /// Transform id of type PRF.
    pub const fn id(self) -> u16 {
        match self {
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// The algorithm of a transform.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|this| this.id() == id)
    }

    /// Octets of output, and of a preferred key: SK_d, SK_pi and SK_pr (RFC 7296 §2.14).
    #[expect(clippy::len_without_is_empty, reason = "the length of an output, which is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

impl KeMethod {
    /// Transform id of type KE: the group number.
    pub const fn id(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::X25519 => 31,
        }
    }

    /// The method of a transform or a KE payload.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|this| this.id() == id)
    }

    /// Octets of a public value in a KE payload.
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::X25519 => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_leads_back_from_its_number() {
        for &encryption in Encryption::ALL {
            assert_eq!(Encryption::from_id(encryption.id(), encryption.key_bits()), Some(encryption));
        }
        for &method in KeMethod::ALL {
            assert_eq!(KeMethod::from_id(method.id()), Some(method));
        }
        for &integrity in Integrity::ALL {
            assert_eq!(Integrity::from_id(integrity.id()), Some(integrity));
            assert_eq!(Prf::from_id(integrity.prf().id()), Some(integrity.prf()));
        }
        assert_eq!(Encryption::from_id(12, None), None);
        assert_eq!(Encryption::from_id(28, Some(256)), None, "RFC 7634 has no Key Length attribute");
        assert_eq!(KeMethod::from_id(2), None);
    }
}
