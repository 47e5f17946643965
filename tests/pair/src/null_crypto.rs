//! A provider that is fast and provides NO SECURITY: arithmetic in place of cryptography.
//!
//! It keeps what the protocol leans on: other keys, nonces or octets give other outputs; a changed message
//! does not open; a (key, IV) pair that is used twice is caught.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use pollux_ike::crypto::{
    CryptoError, Encryption, Integrity, Iv, KeMethod, KeyExchange, Prf, Provider, Rng, Secret, SkCipher,
};

/// The provider.
#[derive(Debug, Default)]
pub struct NullCrypto {
    used: Used,
    gullible: bool,
}

/// Every (key, IV) pair that sealed a message.
type Used = Arc<Mutex<Pairs>>;

#[derive(Debug, Default)]
struct Pairs {
    seen: BTreeSet<(u64, [u8; 8])>,
    repeated: bool,
}

impl NullCrypto {
    /// A provider that takes every message for authentic, so that mangled ones reach the exchanges.
    pub fn gullible() -> Self {
        Self { gullible: true, ..Self::default() }
    }

    /// Whether a (key, IV) pair has sealed two messages.
    pub fn repeated_an_iv(&self) -> bool {
        self.used.lock().map_or(true, |used| used.repeated)
    }
}

fn mix(hash: u64, octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    step(hash, u64::from_le_bytes(tail))
}

fn step(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 29)
}

/// As the RFC concatenates: where one part ends and the next begins makes no difference to a PRF, so the
/// parts are joined before they are mixed.
fn digest(key: &[u8], parts: &[&[u8]]) -> u64 {
    let joined = parts.concat();
    mix(mix(0x517c_c1b7_2722_0a95 ^ joined.len() as u64, key), &joined)
}

fn stretch(mut seed: u64, out: &mut [u8]) {
    for chunk in out.chunks_mut(8) {
        seed = step(seed, 0x2545_f491_4f6c_dd1d);
        chunk.copy_from_slice(&seed.to_le_bytes()[..chunk.len()]);
    }
}

impl Provider for NullCrypto {
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
        if out.len() != prf.len() {
            return Err(CryptoError::Length { what: "PRF output", len: out.len() });
        }
        stretch(digest(key, parts), out);
        Ok(())
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut out = [0; 20];
        stretch(digest(&[], parts), &mut out);
        out
    }

    fn start_ke(&self, method: KeMethod, rng: &mut dyn Rng) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let mut public = vec![0; method.public_len()];
        rng.fill(&mut public);
        Ok(Box::new(NullKe { method, public }))
    }

    fn sk_cipher(
        &self,
        encryption: Encryption,
        key: &[u8],
        integrity: Option<(Integrity, &[u8])>,
    ) -> Result<Box<dyn SkCipher>, CryptoError> {
        if key.len() != encryption.key_material_len() {
            return Err(CryptoError::Length { what: "SK_e", len: key.len() });
        }
        let key = digest(key, &[integrity.map_or(&[][..], |(_, key)| key)]);
        Ok(Box::new(NullCipher { key, used: self.used.clone(), gullible: self.gullible }))
    }
}

#[derive(Debug)]
struct NullKe {
    method: KeMethod,
    public: Vec<u8>,
}

impl KeyExchange for NullKe {
    fn method(&self) -> KeMethod {
        self.method
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn finish(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        if peer_public.len() != self.public.len() {
            return Err(CryptoError::PublicValue(self.method));
        }
        Ok(Secret::new(self.public.iter().zip(peer_public).map(|(ours, theirs)| ours ^ theirs).collect()))
    }
}

#[derive(Debug)]
struct NullCipher {
    key: u64,
    used: Used,
    gullible: bool,
}

/// Octets of IV and of ICV.
const LEN: usize = 8;

impl SkCipher for NullCipher {
    fn iv_len(&self) -> usize {
        LEN
    }

    fn icv_len(&self) -> usize {
        LEN
    }

    fn block_len(&self) -> usize {
        1
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        let first: [u8; LEN] = *iv.as_bytes().first_chunk().ok_or(CryptoError::Internal("IV"))?;
        if let Ok(mut used) = self.used.lock() {
            used.repeated |= !used.seen.insert((self.key, first));
        }
        message[content..content + LEN].copy_from_slice(&first);
        let (body, icv) = message.split_at_mut(message.len() - LEN);
        icv.copy_from_slice(&mix(self.key, body).to_be_bytes());
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        if message.len() < content + 2 * LEN {
            return Err(CryptoError::Authentication);
        }
        let (body, icv) = message.split_at_mut(message.len() - LEN);
        if !self.gullible && *icv != mix(self.key, body).to_be_bytes() {
            return Err(CryptoError::Authentication);
        }
        Ok(&mut body[content + LEN..])
    }
}
