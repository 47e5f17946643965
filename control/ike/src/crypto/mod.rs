//! The seam to cryptography: what the core asks of a provider, and what it computes on top of it.
//!
//! ```text
//! Provider ── start_ke / answer_ke ──► KeyExchange (both roles; shaped so that a KEM fits)
//!          ── prf, sha1             ──► prf_plus, the SKEYSEED tree, AUTH, NAT detection
//!          ── sk_cipher             ──► SkCipher (one direction of one IKE SA, keyed once)
//! ```
//!
//! A provider has no randomness of its own: what has to be random is drawn from the [`Rng`] that the caller
//! passes in. So the same seed gives the same octets on the wire, and a simulation can be replayed.

mod algorithm;
mod secret;

use core::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

pub use algorithm::{Encryption, Integrity, IvRule, KeMethod, Prf};
pub use secret::{Secret, constant_time_eq};

/// Where randomness comes from: the operating system in a gateway, a seed in a simulation.
pub trait Rng {
    /// Fills `out` with octets that nobody can guess.
    fn fill(&mut self, out: &mut [u8]);
}

/// `N` random octets.
pub fn draw<const N: usize>(rng: &mut dyn Rng) -> [u8; N] {
    let mut octets = [0; N];
    rng.fill(&mut octets);
    octets
}

/// Why a provider could not do what it was asked.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CryptoError {
    /// The peer's public value is none, or one that RFC 6989 and RFC 8031 tell us to refuse.
    #[error("the peer's public value is not valid for {0}")]
    PublicValue(KeMethod),
    /// The ICV does not hold: another key, or not the octets that were sent.
    #[error("the message's integrity check failed")]
    Authentication,
    /// A key, IV or output length that the algorithm cannot have.
    #[error("{what} cannot have {len} octets")]
    Length {
        /// Which.
        what: &'static str,
        /// How many it has.
        len: usize,
    },
    /// The provider does not do this.
    #[error("the cryptography provider does not do {0}")]
    Unsupported(&'static str),
    /// The provider failed where no input can make it fail.
    #[error("the cryptography provider failed in {0}")]
    Internal(&'static str),
}

/// Cryptography. Signatures, certificates and post-quantum keys are methods to come; none changes these.
pub trait Provider: fmt::Debug + Send + Sync {
    /// `prf(key, parts[0] | parts[1] | …)` into `out`, which has [`Prf::len`] octets.
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]], out: &mut [u8]) -> Result<(), CryptoError>;

    /// SHA-1 of `parts` one after the other: for NAT detection only (RFC 7296 §2.23).
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20];

    /// Makes the initiator's half of a key exchange, its private key drawn from `rng`.
    fn start_ke(&self, method: KeMethod, rng: &mut dyn Rng) -> Result<Box<dyn KeyExchange>, CryptoError>;

    /// Makes the responder's half from the initiator's public value: our public value and the shared secret.
    ///
    /// The peer's value is checked before anything costly is done with it.
    fn answer_ke(
        &self,
        method: KeMethod,
        peer_public: &[u8],
        rng: &mut dyn Rng,
    ) -> Result<(Vec<u8>, Secret), CryptoError> {
        let ours = self.start_ke(method, rng)?;
        let public = ours.public().to_vec();
        Ok((public, ours.finish(peer_public)?))
    }

    /// Keys one direction of an IKE SA's SK payloads: SK_e and SK_a of that direction.
    ///
    /// `encryption_key` has [`Encryption::key_material_len`] octets, salt included; `integrity` is `None`
    /// exactly for combined modes.
    fn sk_cipher(
        &self,
        encryption: Encryption,
        encryption_key: &[u8],
        integrity: Option<(Integrity, &[u8])>,
    ) -> Result<Box<dyn SkCipher>, CryptoError>;
}

/// The initiator's half of a key exchange, waiting for the peer's public value.
pub trait KeyExchange: fmt::Debug + Send + Sync {
    /// Its method.
    fn method(&self) -> KeMethod;

    /// What goes into the KE payload.
    fn public(&self) -> &[u8];

    /// The shared secret `g^ir`. Refuses public values that are invalid or lead to a known secret.
    fn finish(self: Box<Self>, peer_public: &[u8]) -> Result<Secret, CryptoError>;
}

/// Protects the SK payloads of one direction of an IKE SA (RFC 7296 §3.14, RFC 5282).
///
/// `message` is the whole message; its content, from offset `content`, is IV, ciphertext and ICV, and all
/// before it is authenticated.
pub trait SkCipher: fmt::Debug + Send + Sync {
    /// Octets of IV.
    fn iv_len(&self) -> usize;

    /// Octets of ICV.
    fn icv_len(&self) -> usize;

    /// What plaintext with padding is a multiple of: 1 for combined modes.
    fn block_len(&self) -> usize;

    /// Writes the IV, encrypts the plaintext that lies between IV and ICV in place, and writes the ICV.
    fn seal(&self, iv: &Iv, message: &mut [u8], content: usize) -> Result<(), CryptoError>;

    /// Checks the ICV and decrypts in place; the plaintext still has its padding.
    fn open<'m>(&self, message: &'m mut [u8], content: usize) -> Result<&'m mut [u8], CryptoError>;
}

/// The IV of one SK payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iv {
    octets: [u8; 16],
    len: u8,
}

impl Iv {
    /// The IV of the message with this number under a key: the number itself for combined modes, which must
    /// never repeat; random for CBC, where it must not be guessed.
    pub fn new(encryption: Encryption, number: u64, rng: &mut dyn Rng) -> Self {
        match encryption.iv_rule() {
            IvRule::Counter => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(&number.to_be_bytes());
                Self { octets, len: 8 }
            }
            IvRule::Random => Self { octets: draw(rng), len: 16 },
        }
    }

    /// The octets on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// `prf+(key, seed)`, as many octets as `out` has (RFC 7296 §2.13).
///
/// Fails where `out` is longer than 255 blocks.
pub fn prf_plus(
    provider: &dyn Provider,
    prf: Prf,
    key: &[u8],
    seed: &[&[u8]],
    out: &mut [u8],
) -> Result<(), CryptoError> {
    let (len, block_len) = (out.len(), prf.len());
    let mut block = Zeroizing::new([0; Prf::LEN_MAX]);
    for at in (0..len).step_by(block_len) {
        let counter =
            u8::try_from(at / block_len + 1).map_err(|_| CryptoError::Length { what: "prf+", len })?;
        let (done, rest) = out.split_at_mut(at);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
        // Nothing at first, the previous block from then on.
        parts.push(&done[at.saturating_sub(block_len)..]);
        parts.extend_from_slice(seed);
        let counter = [counter];
        parts.push(&counter);
        provider.prf(prf, key, &parts, &mut block[..block_len])?;
        let take = rest.len().min(block_len);
        rest[..take].copy_from_slice(&block[..take]);
    }
    Ok(())
}
