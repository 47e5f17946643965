//! The cryptography behind pollux-ike: its [`Provider`](pollux_ike::crypto::Provider) on aws-lc-rs and RustCrypto.
//!
//! ```text
//! AwsLc ── prf     HMAC-SHA2 (aws-lc)
//!       ── ke      X25519, P-256, P-384, P-521 (aws-lc), MODP (crypto-bigint, constant time)
//!       ── cipher  AES-GCM, ChaCha20-Poly1305 (aws-lc), AES-CBC with HMAC-SHA2 (RustCrypto's aes and cbc, aws-lc's HMAC)
//! ```
//!
//! aws-lc-rs has no finite-field Diffie-Hellman, and its CBC pads in its own way; hence the other two. C and
//! assembly end at this crate: nothing of it shows in an interface. Every private key is drawn from the
//! randomness that the caller passes in; [`OsRng`] is the operating system's.
//!
//! Promises: no panic, whatever a peer sends; secrets are compared in constant time and wiped when dropped.
#![forbid(unsafe_code)]

mod cbc_hmac;
mod combined;
mod ecdh;
mod modp;
mod prf;
mod provider;
mod random;

pub use provider::AwsLc;
pub use random::OsRng;

#[cfg(test)]
mod testing;
