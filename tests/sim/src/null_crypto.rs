//! A provider that keeps nothing secret, for simulation and fuzzing only.
//!
//! It has the sizes of the real one and notices every changed octet and every wrong key, and costs a few
//! multiplications a message. A public value is the private one; the "secret" that both ends share is a hash
//! of the two. Every (key, IV) pair that it seals with is kept, so that a second use is found.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use pollux_ike::crypto::{
    CryptoError, Encryption, Integrity, Iv, KeMethod, KeyExchange, Prf, Provider, Rng, Secret, SkCipher, draw,
};

/// The provider of one simulated world; clones share what they have seen.
#[derive(Clone, Debug, Default)]
pub struct NullCrypto {
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug, Default)]
struct Ledger {
    used: BTreeSet<(u64, Vec<u8>)>,
    reused: Option<String>,
}

impl NullCrypto {
    /// A world without a past.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first (key, IV) pair that was used twice, in words; `None` as it must be.
    pub fn reused_iv(&self) -> Option<String> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).reused.clone()
    }

    /// How many (key, IV) pairs were used.
    pub fn sealed(&self) -> usize {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).used.len()
    }
}

/// FNV-1a with a final mix: every octet and its place count.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(mut self, octets: &[u8]) -> Self {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    /// As many octets as `out` has.
    fn expand(self, out: &mut [u8]) {
        for (at, chunk) in (1u64..).zip(out.chunks_mut(8)) {
            let mut z = self.0.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let octets = (z ^ (z >> 31)).to_be_bytes();
            chunk.copy_from_slice(&octets[..chunk.len()]);
        }
    }
}

impl Provider for NullCrypto {
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError> {
        if out.len() != prf.len() {
            return Err(CryptoError::Length { what: "a PRF's output", len: out.len() });
        }
        let keyed = Hash::new().add(&[1, prf.id().to_be_bytes()[1]]).add(key).add(&[0xff]);
        parts.iter().fold(keyed, |hash, part| hash.add(part)).expand(out);
        Ok(())
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut out = [0; 20];
        parts.iter().fold(Hash::new().add(&[2]), |hash, part| hash.add(part)).expand(&mut out);
        out
    }

    fn start_ke(&self, method: KeMethod, rng: &mut dyn Rng) -> Result<Box<dyn KeyExchange>, CryptoError> {
        let mut public = vec![0; method.public_len()];
        Hash::new().add(&draw::<16>(rng)).expand(&mut public);
        Ok(Box::new(NullExchange { method, public }))
    }

    fn sk_cipher(
        &self,
        encryption: Encryption,
        encryption_key: &[u8],
        integrity: Option<(Integrity, &[u8])>,
    ) -> Result<Box<dyn SkCipher>, CryptoError> {
        let fits = encryption.is_combined() == integrity.is_none()
            && encryption_key.len() == encryption.key_material_len()
            && integrity.is_none_or(|(integrity, key)| key.len() == integrity.key_len());
        if !fits {
            return Err(CryptoError::Length { what: "a key", len: encryption_key.len() });
        }
        let mac_key = integrity.map_or(&[][..], |(_, key)| key);
        Ok(Box::new(NullCipher {
            key: Hash::new().add(encryption_key).add(&[0xff]).add(mac_key).0,
            iv_len: if encryption.is_combined() { 8 } else { 16 },
            icv_len: integrity.map_or(16, |(integrity, _)| integrity.icv_len()),
            block_len: if encryption.is_combined() { 1 } else { 16 },
            ledger: Arc::clone(&self.ledger),
        }))
    }
}

#[derive(Debug)]
struct NullExchange {
    method: KeMethod,
    public: Vec<u8>,
}

impl KeyExchange for NullExchange {
    fn method(&self) -> KeMethod {
        self.method
    }

    fn public(&self) -> &[u8] {
        &self.public
    }

    fn finish(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        // Real methods refuse zero too.
        if peer_public.len() != self.public.len() || peer_public.iter().all(|octet| *octet == 0) {
            return Err(CryptoError::PublicValue(self.method));
        }
        let (low, high) = (peer_public.min(&self.public), peer_public.max(&self.public));
        let mut shared = vec![0; 32];
        Hash::new().add(low).add(high).expand(&mut shared);
        Ok(Secret::new(shared))
    }
}

#[derive(Debug)]
struct NullCipher {
    key: u64,
    iv_len: usize,
    icv_len: usize,
    block_len: usize,
    ledger: Arc<Mutex<Ledger>>,
}

impl NullCipher {
    fn icv(&self, covered: &[u8]) -> Vec<u8> {
        let mut icv = vec![0; self.icv_len];
        Hash::new().add(&self.key.to_be_bytes()).add(covered).expand(&mut icv);
        icv
    }
}

impl SkCipher for NullCipher {
    fn iv_len(&self) -> usize {
        self.iv_len
    }

    fn icv_len(&self) -> usize {
        self.icv_len
    }

    fn block_len(&self) -> usize {
        self.block_len
    }

    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError> {
        let wrong = CryptoError::Length { what: "an SK payload", len: message.len() };
        let covered = message.len().checked_sub(self.icv_len).ok_or(wrong)?;
        let place = message.get_mut(content..content + self.iv_len).ok_or(wrong)?;
        if iv.as_bytes().len() != self.iv_len || content + self.iv_len > covered {
            return Err(wrong);
        }
        place.copy_from_slice(iv.as_bytes());
        let icv = self.icv(&message[..covered]);
        message[covered..].copy_from_slice(&icv);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if !ledger.used.insert((self.key, iv.as_bytes().to_vec())) && ledger.reused.is_none() {
            ledger.reused = Some(format!("key {:016x}, IV {:02x?}", self.key, iv.as_bytes()));
        }
        Ok(())
    }

    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError> {
        let failed = CryptoError::Authentication;
        let covered = message.len().checked_sub(self.icv_len).ok_or(failed)?;
        if self.icv(&message[..covered]) != message[covered..] {
            return Err(failed);
        }
        message.get_mut(content + self.iv_len..covered).ok_or(failed)
    }
}

#[cfg(test)]
mod tests {
    use pollux_ike::crypto::prf_plus;

    use super::*;

    struct Counting(u8);

    impl Rng for Counting {
        fn fill(&mut self, out: &mut [u8]) {
            for octet in out {
                self.0 = self.0.wrapping_add(1);
                *octet = self.0;
            }
        }
    }

    #[test]
    fn both_ends_share_a_secret_that_others_do_not() {
        let crypto = NullCrypto::new();
        let mut rng = Counting(0);
        for &method in KeMethod::ALL {
            let ours = crypto.start_ke(method, &mut rng).expect("starts");
            let (public, theirs) = crypto.answer_ke(method, ours.public(), &mut rng).expect("answers");
            let (_, other) = crypto.answer_ke(method, ours.public(), &mut rng).expect("answers");
            let ours = ours.finish(&public).expect("finishes");
            assert_eq!(ours.as_bytes(), theirs.as_bytes());
            assert_ne!(ours.as_bytes(), other.as_bytes());
        }
    }

    #[test]
    fn prf_sees_the_concatenation_of_its_parts() {
        let crypto = NullCrypto::new();
        let output = |key: &[u8], seed: &[&[u8]]| {
            let mut out = [0; 100];
            prf_plus(&crypto, Prf::HmacSha256, key, seed, &mut out).expect("short enough");
            out
        };
        assert_eq!(output(b"k", &[b"ab", b"c"]), output(b"k", &[b"a", b"bc"]));
        assert_ne!(output(b"k", &[b"abc"]), output(b"k", &[b"abd"]));
        assert_ne!(output(b"k", &[b"abc"]), output(b"l", &[b"abc"]));
    }

    #[test]
    fn a_changed_octet_a_wrong_key_and_a_reused_iv_are_noticed() {
        let crypto = NullCrypto::new();
        let encryption = Encryption::Aes128Gcm16;
        let keyed = |octet: u8| crypto.sk_cipher(encryption, &[octet; 20], None).expect("fits");
        let iv = Iv::new(encryption, 7, &mut Counting(0));
        let mut message = vec![3; 60];
        keyed(1).seal(&iv, &mut message, 28).expect("fits");
        assert!(keyed(1).open(&mut message.clone(), 28).is_ok());
        assert!(keyed(2).open(&mut message.clone(), 28).is_err());
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 0x40;
            assert!(keyed(1).open(&mut changed, 28).is_err(), "octet {at}");
        }
        keyed(2).seal(&iv, &mut message, 28).expect("fits");
        assert_eq!((crypto.reused_iv(), crypto.sealed()), (None, 2));
        keyed(1).seal(&iv, &mut message, 28).expect("fits");
        assert!(crypto.reused_iv().is_some());
    }
}
