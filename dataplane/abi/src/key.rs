//! Key material in transit: from configuration or IKE, through a ring slot, into a cipher context.

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::suite::EspSuite;

/// The most octets that a suite needs: AES-CBC-256 with HMAC-SHA2-512.
pub const MATERIAL_MAX: usize = 96;

/// Encryption key, salt and integrity key of one SA, in the order of KEYMAT (RFC 7296 §2.17).
///
/// Wiped when dropped, never cloned, never printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    bytes: [u8; MATERIAL_MAX],
    len: u8,
}

impl KeyMaterial {
    /// Copies `bytes`; `None` if there are more than [`MATERIAL_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len()).ok()?;
        let mut material = Self { bytes: [0; MATERIAL_MAX], len };
        material.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(material)
    }

    /// All octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether the length is what `suite` needs.
    pub fn fits(&self, suite: EspSuite) -> bool {
        usize::from(self.len) == suite.material_len()
    }

    /// The encryption key; empty where the length does not fit.
    pub fn encryption(&self, suite: EspSuite) -> &[u8] {
        self.as_bytes().get(..suite.key_len()).unwrap_or_default()
    }

    /// The salt.
    pub fn salt(&self, suite: EspSuite) -> &[u8] {
        self.as_bytes().get(suite.key_len()..suite.key_len() + suite.salt_len()).unwrap_or_default()
    }

    /// The integrity key.
    pub fn integrity(&self, suite: EspSuite) -> &[u8] {
        self.as_bytes().get(suite.key_len() + suite.salt_len()..).unwrap_or_default()
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn material_splits_as_keymat_does() {
        let bytes: Vec<u8> = (0..96).collect();
        let material = KeyMaterial::new(&bytes).expect("96 octets fit");
        let suite = EspSuite::Aes256CbcSha512;
        assert!(material.fits(suite));
        assert_eq!(material.encryption(suite), &bytes[..32]);
        assert_eq!(material.integrity(suite), &bytes[32..]);
        let gcm = KeyMaterial::new(&bytes[..20]).expect("20 octets fit");
        assert_eq!(gcm.salt(EspSuite::Aes128Gcm16), &bytes[16..20]);
        assert!(!gcm.fits(EspSuite::Aes256Gcm16));
    }

    #[test]
    fn material_is_never_printed_and_never_too_long() {
        let material = KeyMaterial::new(b"secret").expect("fits");
        assert_eq!(format!("{material:?}"), "[redacted]");
        assert!(KeyMaterial::new(&[0; 97]).is_none());
        assert!(KeyMaterial::new(&[0; 300]).is_none());
    }
}
