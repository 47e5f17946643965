//! RustCrypto, ring, aws-lc-rs and OpenSSL.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};
use anyhow::{Result, anyhow};
use chacha20poly1305::ChaCha20Poly1305;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use pollux_aead::Suite;

use super::{Contender, ICV_LEN, KEY, Pool, TEXT_AT, nonce};

/// One packet cut into AAD, text and ICV.
fn cut(packet: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8]) {
    let (head, rest) = packet.split_at_mut(TEXT_AT);
    let (text, icv) = rest.split_at_mut(rest.len() - ICV_LEN);
    (head, text, icv)
}

/// Any cipher of the RustCrypto crates.
pub struct RustCrypto<A> {
    contexts: Vec<A>,
}

/// The suite's cipher, with so many contexts.
pub fn rustcrypto(suite: Suite, contexts: usize) -> Result<Box<dyn Contender>> {
    fn make<A: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16> + 'static>(
        suite: Suite,
        contexts: usize,
    ) -> Result<Box<dyn Contender>> {
        let context = || A::new_from_slice(&KEY[..suite.key_len()]).map_err(|_| anyhow!("the key's length"));
        Ok(Box::new(RustCrypto { contexts: (0..contexts).map(|_| context()).collect::<Result<Vec<A>>>()? }))
    }
    match suite {
        Suite::Aes128Gcm16 => make::<Aes128Gcm>(suite, contexts),
        Suite::Aes256Gcm16 => make::<Aes256Gcm>(suite, contexts),
        _ => make::<ChaCha20Poly1305>(suite, contexts),
    }
}

impl<A: AeadInOut<NonceSize = U12, TagSize = U16>> Contender for RustCrypto<A> {
    fn name(&self) -> &'static str {
        "rustcrypto"
    }

    fn seal(&mut self, pool: &mut Pool, sas: &[u32]) {
        pool.each(|i, packet| {
            let (head, text, icv) = cut(packet);
            head[8..].copy_from_slice(&(i as u64).to_be_bytes());
            let context = &self.contexts[sas[i] as usize];
            if let Ok(tag) = context.encrypt_inout_detached(&nonce(i).into(), &head[..8], text.into()) {
                icv.copy_from_slice(&tag);
            }
        });
    }

    fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize {
        let mut authentic = 0;
        pool.each(|i, packet| {
            let (head, text, icv) = cut(packet);
            let mut tag = [0; ICV_LEN];
            tag.copy_from_slice(icv);
            let context = &self.contexts[sas[i] as usize];
            let opened =
                context.decrypt_inout_detached(&nonce(i).into(), &head[..8], text.into(), &tag.into());
            authentic += usize::from(opened.is_ok());
        });
        authentic
    }
}

/// `ring` and `aws-lc-rs` have the same interface under different names.
macro_rules! ring_like {
    ($type:ident, $crate_name:ident, $name:literal, $doc:literal) => {
        #[doc = $doc]
        pub struct $type {
            contexts: Vec<$crate_name::aead::LessSafeKey>,
        }

        impl $type {
            /// With so many contexts.
            pub fn new(suite: Suite, contexts: usize) -> Result<Self> {
                use $crate_name::aead::{
                    AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey,
                };
                let algorithm = match suite {
                    Suite::Aes128Gcm16 => &AES_128_GCM,
                    Suite::Aes256Gcm16 => &AES_256_GCM,
                    _ => &CHACHA20_POLY1305,
                };
                let context = || {
                    let key = UnboundKey::new(algorithm, &KEY[..suite.key_len()]);
                    key.map(LessSafeKey::new).map_err(|_| anyhow!("the key's length"))
                };
                Ok(Self { contexts: (0..contexts).map(|_| context()).collect::<Result<_>>()? })
            }
        }

        impl Contender for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn seal(&mut self, pool: &mut Pool, sas: &[u32]) {
                use $crate_name::aead::{Aad, Nonce};
                pool.each(|i, packet| {
                    let (head, text, icv) = cut(packet);
                    head[8..].copy_from_slice(&(i as u64).to_be_bytes());
                    let context = &self.contexts[sas[i] as usize];
                    let nonce = Nonce::assume_unique_for_key(nonce(i));
                    if let Ok(tag) = context.seal_in_place_separate_tag(nonce, Aad::from(&head[..8]), text) {
                        icv.copy_from_slice(tag.as_ref());
                    }
                });
            }

            fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize {
                use $crate_name::aead::{Aad, Nonce};
                let mut authentic = 0;
                pool.each(|i, packet| {
                    let (head, rest) = packet.split_at_mut(TEXT_AT);
                    let context = &self.contexts[sas[i] as usize];
                    let nonce = Nonce::assume_unique_for_key(nonce(i));
                    authentic +=
                        usize::from(context.open_in_place(nonce, Aad::from(&head[..8]), rest).is_ok());
                });
                authentic
            }
        }
    };
}

ring_like!(Ring, ring, "ring", "The `ring` crate.");
ring_like!(AwsLc, aws_lc_rs, "aws-lc-rs", "The `aws-lc-rs` crate.");

/// OpenSSL's EVP interface: a context with its key set for each SA and direction.
pub struct OpenSsl {
    seal: Vec<CipherCtx>,
    open: Vec<CipherCtx>,
}

impl OpenSsl {
    /// With so many contexts.
    pub fn new(suite: Suite, contexts: usize) -> Result<Self> {
        let cipher = match suite {
            Suite::Aes128Gcm16 => Cipher::aes_128_gcm(),
            Suite::Aes256Gcm16 => Cipher::aes_256_gcm(),
            _ => Cipher::chacha20_poly1305(),
        };
        let key = &KEY[..suite.key_len()];
        let (mut seal, mut open) = (Vec::new(), Vec::new());
        for _ in 0..contexts {
            let mut context = CipherCtx::new()?;
            context.encrypt_init(Some(cipher), Some(key), None)?;
            seal.push(context);
            let mut context = CipherCtx::new()?;
            context.decrypt_init(Some(cipher), Some(key), None)?;
            open.push(context);
        }
        Ok(Self { seal, open })
    }
}

impl Contender for OpenSsl {
    fn name(&self) -> &'static str {
        "openssl"
    }

    fn seal(&mut self, pool: &mut Pool, sas: &[u32]) {
        pool.each(|i, packet| {
            let (head, text, icv) = cut(packet);
            head[8..].copy_from_slice(&(i as u64).to_be_bytes());
            let context = &mut self.seal[sas[i] as usize];
            let sealed = context.encrypt_init(None, None, Some(&nonce(i))).and_then(|()| {
                context.cipher_update(&head[..8], None)?;
                let len = text.len();
                context.cipher_update_inplace(text, len)?;
                context.cipher_final(&mut [])?;
                context.tag(icv)
            });
            debug_assert!(sealed.is_ok());
        });
    }

    fn open(&mut self, pool: &mut Pool, sas: &[u32]) -> usize {
        let mut authentic = 0;
        pool.each(|i, packet| {
            let (head, text, icv) = cut(packet);
            let context = &mut self.open[sas[i] as usize];
            let opened = context.decrypt_init(None, None, Some(&nonce(i))).and_then(|()| {
                context.set_tag(icv)?;
                context.cipher_update(&head[..8], None)?;
                let len = text.len();
                context.cipher_update_inplace(text, len)?;
                context.cipher_final(&mut [])
            });
            authentic += usize::from(opened.is_ok());
        });
        authentic
    }
}
