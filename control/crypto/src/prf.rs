//! HMAC-SHA2 as PRF (RFC 4868) and as integrity of AES-CBC.

use aws_lc_rs::hmac::{self, Context, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512, Key};
use pollux_ike::crypto::{CryptoError, Integrity, Prf};

/// `prf(key, parts[0] | parts[1] | …)` into `out`.
pub(crate) fn prf(prf: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
    let mut context = Context::with_key(&Key::new(of_prf(prf), key));
    for part in parts {
        context.update(part);
    }
    let tag = context.sign();
    if tag.as_ref().len() != out.len() {
        return Err(CryptoError::Length { what: "a PRF's output", len: out.len() });
    }
    out.copy_from_slice(tag.as_ref());
    Ok(())
}

fn of_prf(prf: Prf) -> hmac::Algorithm {
    match prf {
        Prf::HmacSha256 => HMAC_SHA256,
        Prf::HmacSha384 => HMAC_SHA384,
        Prf::HmacSha512 => HMAC_SHA512,
    }
}

/// A keyed integrity algorithm.
pub(crate) struct Mac {
    key: Key,
    icv_len: usize,
}

impl Mac {
    pub(crate) fn new(integrity: Integrity, key: &[u8]) -> Result<Self, CryptoError> {
        if key.len() != integrity.key_len() {
            return Err(CryptoError::Length { what: "an integrity key", len: key.len() });
        }
        Ok(Self { key: Key::new(of_prf(integrity.prf()), key), icv_len: integrity.icv_len() })
    }

    pub(crate) fn icv_len(&self) -> usize {
        self.icv_len
    }

    /// Writes the ICV of `message`; `out` has [`Self::icv_len`] octets.
    pub(crate) fn write(&self, message: &[u8], out: &mut [u8]) {
        let tag = hmac::sign(&self.key, message);
        out.copy_from_slice(&tag.as_ref()[..self.icv_len]);
    }

    /// Compares in constant time.
    pub(crate) fn holds(&self, message: &[u8], icv: &[u8]) -> bool {
        let tag = hmac::sign(&self.key, message);
        pollux_ike::crypto::constant_time_eq(&tag.as_ref()[..self.icv_len], icv)
    }
}

#[cfg(test)]
mod tests;
