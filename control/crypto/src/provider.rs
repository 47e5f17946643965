//! The provider: which part does what.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use pollux_ike::crypto::{
    CryptoError, Encryption, Integrity, KeMethod, KeyExchange, Prf, Provider, Rng, SkCipher,
};

use crate::cbc_hmac;
use crate::combined::Combined;
use crate::ecdh::Ecdh;
use crate::modp::Modp;
use crate::prf;

/// Cryptography by aws-lc and RustCrypto. Holds no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

impl Provider for AwsLc {
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
        prf::prf(prf, key, parts, out)
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        for part in parts {
            context.update(part);
        }
        let mut out = [0; 20];
        out.copy_from_slice(context.finish().as_ref());
        out
    }

    fn start_ke(&self, method: KeMethod, rng: &mut dyn Rng) -> Result<Box<dyn KeyExchange>, CryptoError> {
        Ok(match method {
            KeMethod::X25519 | KeMethod::Ecp256 | KeMethod::Ecp384 | KeMethod::Ecp521 => {
                Box::new(Ecdh::generate(method, rng)?)
            }
            KeMethod::Modp2048 | KeMethod::Modp3072 | KeMethod::Modp4096 => {
                Box::new(Modp::generate(method, rng)?)
            }
        })
    }

    fn sk_cipher(
        &self,
        encryption: Encryption,
        encryption_key: &[u8],
        integrity: Option<(Integrity, &[u8])>,
    ) -> Result<Box<dyn SkCipher>, CryptoError> {
        match integrity {
            None => Ok(Box::new(Combined::new(encryption, encryption_key)?)),
            Some((integrity, key)) => cbc_hmac::new(encryption, encryption_key, integrity, key),
        }
    }
}

#[cfg(test)]
mod tests;
