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

    /// The same in a box, written where it stays: a move of the box leaves nothing behind.
    pub fn boxed(bytes: &[u8]) -> Option<Box<Self>> {
        let len = u8::try_from(bytes.len()).ok()?;
        let mut material = Box::new(Self { bytes: [0; MATERIAL_MAX], len });
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

/// Octets of stack that [`wipe_stack`] overwrites: more than the functions need that keys pass through.
const STACK_WIPED: usize = 32 << 10;

/// Overwrites the stack below the caller's frame.
///
/// Rust moves a value by copying it and forgets the copy, which [`Drop`] does not see: a key that was returned or
/// passed on may lie in frames of functions that are over. Call it where these were called from.
#[expect(clippy::large_stack_arrays, reason = "the stack is what is overwritten")]
#[inline(never)]
pub fn wipe_stack() {
    let mut stack = [0_u64; STACK_WIPED / 8];
    stack.zeroize();
    core::hint::black_box(&stack);
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
    fn boxed_material_is_the_same() {
        let material = KeyMaterial::boxed(&[7; 20]).expect("fits");
        assert_eq!(material.as_bytes(), [7; 20]);
        assert!(KeyMaterial::boxed(&[0; 97]).is_none() && KeyMaterial::boxed(&[0; 300]).is_none());
    }

    #[test]
    fn material_is_never_printed_and_never_too_long() {
        let material = KeyMaterial::new(b"secret").expect("fits");
        assert_eq!(format!("{material:?}"), "[redacted]");
        assert!(KeyMaterial::new(&[0; 97]).is_none());
        assert!(KeyMaterial::new(&[0; 300]).is_none());
    }
}
