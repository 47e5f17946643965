//! AES-CBC with HMAC-SHA2 for SK payloads (RFC 7296 §3.14, RFC 3602, RFC 4868): encrypt, then MAC.

use core::fmt;

use aes::{Aes128, Aes192, Aes256};
use cbc::{Decryptor, Encryptor};
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit,
};
use pollux_ike::crypto::{CryptoError, Encryption, Integrity, Iv, SkCipher};

use crate::prf::Mac;

const BLOCK_LEN: usize = 16;

/// One direction's cipher and MAC.
struct CbcHmac<C> {
    cipher: C,
    mac: Mac,
}

/// Keys the cipher that `encryption` names.
pub(crate) fn new(
    encryption: Encryption,
    key: &[u8],
    integrity: Integrity,
    integrity_key: &[u8],
) -> Result<Box<dyn SkCipher>, CryptoError> {
    let mac = Mac::new(integrity, integrity_key)?;
    match encryption {
        Encryption::Aes128Cbc => keyed::<Aes128>(key, mac),
        Encryption::Aes192Cbc => keyed::<Aes192>(key, mac),
        Encryption::Aes256Cbc => keyed::<Aes256>(key, mac),
        Encryption::Aes128Gcm16
        | Encryption::Aes192Gcm16
        | Encryption::Aes256Gcm16
        | Encryption::ChaCha20Poly1305 => {
            Err(CryptoError::Unsupported("a combined mode with an integrity algorithm"))
        }
    }
}

fn keyed<C>(key: &[u8], mac: Mac) -> Result<Box<dyn SkCipher>, CryptoError>
where
    C: KeyInit + Aes + Send + Sync + 'static,
{
    let wrong = |_| CryptoError::Length { what: "an AES-CBC key", len: key.len() };
    let cipher = C::new_from_slice(key).map_err(wrong)?;
    Ok(Box::new(CbcHmac { cipher, mac }))
}

/// AES with any key size, both ways.
trait Aes: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone {}
impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone> Aes for C {}

impl<C: Aes + Send + Sync> SkCipher for CbcHmac<C> {
    fn iv_len(&self) -> usize {
        BLOCK_LEN
    }

    fn icv_len(&self) -> usize {
        self.mac.icv_len()
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        let wrong = CryptoError::Length { what: "an SK payload", len: message.len() };
        let iv: [u8; BLOCK_LEN] = iv.as_bytes().try_into().map_err(|_| wrong)?;
        let covered = message.len().checked_sub(self.mac.icv_len()).ok_or(wrong)?;
        let (message, icv) = message.split_at_mut_checked(covered).ok_or(wrong)?;
        let content = message.get_mut(content..).ok_or(wrong)?;
        let (iv_place, text) = content.split_first_chunk_mut::<BLOCK_LEN>().ok_or(wrong)?;
        let (blocks, []) = Array::<u8, U16>::slice_as_chunks_mut(text) else { return Err(wrong) };
        *iv_place = iv;
        Encryptor::inner_iv_init(self.cipher.clone(), &Array(iv)).encrypt_blocks(blocks);
        self.mac.write(message, icv);
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        let failed = CryptoError::Authentication;
        let covered = message.len().checked_sub(self.mac.icv_len()).ok_or(failed)?;
        let (message, icv) = message.split_at_mut_checked(covered).ok_or(failed)?;
        if !self.mac.holds(message, icv) {
            return Err(failed);
        }
        let content = message.get_mut(content..).ok_or(failed)?;
        let (iv, text) = content.split_first_chunk_mut::<BLOCK_LEN>().ok_or(failed)?;
        let (blocks, []) = Array::<u8, U16>::slice_as_chunks_mut(text) else { return Err(failed) };
        Decryptor::inner_iv_init(self.cipher.clone(), &Array(*iv)).decrypt_blocks(blocks);
        Ok(text)
    }
}

impl<C> fmt::Debug for CbcHmac<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CbcHmac([redacted])")
    }
}
