#![allow(dead_code, reason = "each test program uses its share")]
//! An independent ESP sealer on whole-message calls of the RustCrypto AEAD crates, and packets to feed it.

use aes_gcm::AesGcm;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use chacha20poly1305::ChaCha20Poly1305;
use cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, Mac};
use pollux_aead::{Engine, Key, Suite};
use sha2::{Sha256, Sha384, Sha512};

/// Keying material of one SA.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) suite: Suite,
    pub(crate) esn: bool,
    pub(crate) enc: Vec<u8>,
    pub(crate) salt: Vec<u8>,
    pub(crate) auth: Vec<u8>,
}

impl Material {
    /// Distinct for each seed.
    pub(crate) fn new(suite: Suite, esn: bool, seed: u64) -> Self {
        let mut octets = Octets(seed ^ 0x9e37_79b9_7f4a_7c15);
        Self {
            suite,
            esn,
            enc: octets.take(suite.key_len()),
            salt: octets.take(suite.salt_len()),
            auth: octets.take(suite.auth_key_len()),
        }
    }

    pub(crate) fn key(&self, engine: Engine) -> Key {
        Key::new(engine, self.suite, self.esn, &self.enc, &self.salt, &self.auth)
            .expect("material of the suite's lengths")
    }

    /// Octets of a packet whose text has `len`.
    pub(crate) fn packet_len(&self, text_len: usize) -> usize {
        8 + self.suite.iv_len() + text_len + self.suite.icv_len()
    }

    /// Seals as the RFCs say.
    pub(crate) fn seal(&self, packet: &mut [u8], seq_high: u32, iv: u64) {
        let start = 8 + self.suite.iv_len();
        let end = packet.len() - self.suite.icv_len();
        let name = self.suite.name();
        let high = seq_high.to_be_bytes();
        let mut aad = packet[..8].to_vec();
        if self.esn {
            aad.splice(4..4, high);
        }
        let sent_iv = match self.suite.iv_len() {
            0 => vec![],
            8 => iv.to_be_bytes().to_vec(),
            _ => {
                let mut block = u128::from(iv).to_be_bytes();
                self.encrypt_block(&mut block);
                block.to_vec()
            }
        };
        packet[8..start].copy_from_slice(&sent_iv);
        let counter = if name.ends_with("iiv") {
            let mut counter = if self.esn { high.to_vec() } else { vec![0; 4] };
            counter.extend(&packet[4..8]);
            counter
        } else {
            sent_iv.clone()
        };
        if name.contains("gcm") || name.contains("gmac") || name.contains("chacha") {
            let nonce: [u8; 12] = [&self.salt[..], &counter[..]].concat().try_into().expect("4 + 8 octets");
            let tag = if name.contains("gmac") {
                aad.extend(&packet[8..end]);
                self.aead(&nonce, &aad, &mut [])
            } else {
                self.aead(&nonce, &aad, &mut packet[start..end])
            };
            let icv_len = self.suite.icv_len();
            packet[end..].copy_from_slice(&tag[..icv_len]);
            return;
        }
        if self.suite.iv_len() == 16 {
            self.cbc(&sent_iv, &mut packet[start..end]);
        }
        self.authenticate(packet, seq_high);
    }

    /// Writes the ICV of an HMAC suite.
    pub(crate) fn authenticate(&self, packet: &mut [u8], seq_high: u32) {
        let end = packet.len() - self.suite.icv_len();
        let mut message = packet[..end].to_vec();
        if self.esn {
            message.extend(seq_high.to_be_bytes());
        }
        let icv = match self.auth.len() {
            32 => mac::<Hmac<Sha256>>(&self.auth, &message),
            48 => mac::<Hmac<Sha384>>(&self.auth, &message),
            _ => mac::<Hmac<Sha512>>(&self.auth, &message),
        };
        packet[end..].copy_from_slice(&icv[..self.suite.icv_len()]);
    }

    /// One combined-mode message.
    pub(crate) fn aead(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        fn run<A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit>(
            key: &[u8],
            nonce: &[u8; 12],
            aad: &[u8],
            text: &mut [u8],
        ) -> [u8; 16] {
            let cipher = A::new_from_slice(key).expect("a key of the cipher's length");
            cipher.encrypt_inout_detached(nonce.into(), aad, text.into()).expect("a short message").into()
        }
        match (self.suite.name().contains("chacha"), self.enc.len()) {
            (true, _) => run::<ChaCha20Poly1305>(&self.enc, nonce, aad, text),
            (_, 16) => run::<AesGcm<Aes128, U12>>(&self.enc, nonce, aad, text),
            (_, 24) => run::<AesGcm<Aes192, U12>>(&self.enc, nonce, aad, text),
            _ => run::<AesGcm<Aes256, U12>>(&self.enc, nonce, aad, text),
        }
    }

    fn encrypt_block(&self, block: &mut [u8; 16]) {
        fn run<C: BlockCipherEncrypt<BlockSize = U16> + KeyInit>(key: &[u8], block: &mut [u8; 16]) {
            C::new_from_slice(key).expect("a key of AES's length").encrypt_block(block.into());
        }
        match self.enc.len() {
            16 => run::<Aes128>(&self.enc, block),
            24 => run::<Aes192>(&self.enc, block),
            _ => run::<Aes256>(&self.enc, block),
        }
    }

    fn cbc(&self, iv: &[u8], text: &mut [u8]) {
        fn run<C: KeyIvInit + BlockModeEncrypt>(key: &[u8], iv: &[u8], text: &mut [u8]) {
            let mut mode = C::new_from_slices(key, iv).expect("a key of AES's length");
            for block in text.chunks_exact_mut(16) {
                mode.encrypt_block(block.try_into().expect("a block of 16 octets"));
            }
        }
        match self.enc.len() {
            16 => run::<cbc::Encryptor<Aes128>>(&self.enc, iv, text),
            24 => run::<cbc::Encryptor<Aes192>>(&self.enc, iv, text),
            _ => run::<cbc::Encryptor<Aes256>>(&self.enc, iv, text),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

/// Deterministic octets: SplitMix64.
pub(crate) struct Octets(pub(crate) u64);

impl Octets {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let mut octets = Vec::with_capacity(len + 8);
        while octets.len() < len {
            octets.extend(self.next().to_le_bytes());
        }
        octets.truncate(len);
        octets
    }
}
