//! Combined modes for SK payloads: AES-GCM with a 16-octet ICV (RFC 5282) and ChaCha20-Poly1305 (RFC 7634).

use core::fmt;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use pollux_ike::crypto::{CryptoError, Encryption, Iv, SkCipher};

const SALT_LEN: usize = 4;
const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;

/// One direction's key and salt.
pub(crate) struct Combined {
    key: LessSafeKey,
    salt: [u8; SALT_LEN],
}

impl Combined {
    /// `material` is the key and, behind it, the salt (RFC 5282 §7.1, RFC 7634 §3).
    pub(crate) fn new(encryption: Encryption, material: &[u8]) -> Result<Self, CryptoError> {
        let wrong =
            CryptoError::Length { what: "the key of a combined mode with its salt", len: material.len() };
        let algorithm = algorithm(encryption)?;
        let (key, salt) = material.split_last_chunk::<SALT_LEN>().ok_or(wrong)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| wrong)?;
        Ok(Self { key: LessSafeKey::new(key), salt: *salt })
    }

    fn nonce(&self, iv: [u8; IV_LEN]) -> Nonce {
        let mut nonce = [0; SALT_LEN + IV_LEN];
        nonce[..SALT_LEN].copy_from_slice(&self.salt);
        nonce[SALT_LEN..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

fn algorithm(encryption: Encryption) -> Result<&'static Algorithm, CryptoError> {
    match encryption {
        Encryption::Aes128Gcm16 => Ok(&AES_128_GCM),
        Encryption::Aes192Gcm16 => Ok(&AES_192_GCM),
        Encryption::Aes256Gcm16 => Ok(&AES_256_GCM),
        Encryption::ChaCha20Poly1305 => Ok(&CHACHA20_POLY1305),
        Encryption::Aes128Cbc | Encryption::Aes192Cbc | Encryption::Aes256Cbc => {
            Err(CryptoError::Unsupported("AES-CBC without an integrity algorithm"))
        }
    }
}

impl SkCipher for Combined {
    fn iv_len(&self) -> usize {
        IV_LEN
    }

    fn icv_len(&self) -> usize {
        ICV_LEN
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        let too_short = CryptoError::Length { what: "an SK payload", len: message.len() };
        let iv: [u8; IV_LEN] = iv.as_bytes().try_into().map_err(|_| too_short)?;
        let (aad, content) = message.split_at_mut_checked(content).ok_or(too_short)?;
        let (iv_place, rest) = content.split_first_chunk_mut::<IV_LEN>().ok_or(too_short)?;
        let (text, icv) = rest.split_last_chunk_mut::<ICV_LEN>().ok_or(too_short)?;
        *iv_place = iv;
        let tag = self.key.seal_in_place_separate_tag(self.nonce(iv), Aad::from(&*aad), text);
        let tag = tag.map_err(|_| CryptoError::Internal("the seal of a combined mode"))?;
        icv.copy_from_slice(tag.as_ref());
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        let (aad, content) = message.split_at_mut_checked(content).ok_or(CryptoError::Authentication)?;
        let (iv, text) = content.split_first_chunk_mut::<IV_LEN>().ok_or(CryptoError::Authentication)?;
        let opened = self.key.open_in_place(self.nonce(*iv), Aad::from(&*aad), text);
        opened.map_err(|_| CryptoError::Authentication)
    }
}

impl fmt::Debug for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Combined([redacted])")
    }
}
