//! The kernels: what runs on a burst, and for which instruction set it is compiled.
//!
//! `isa` names the operations; `aesni`, `vaes256`, `vl256` and `vaes512` are their intrinsics; `gcm` is AES-GCM over any
//! of them, `chacha` ChaCha20-Poly1305; `portable` is every suite on the RustCrypto crates.

#[cfg(target_arch = "x86_64")]
pub(crate) mod aesni;
#[cfg(target_arch = "x86_64")]
mod blocks;
pub(crate) mod chacha;
pub(crate) mod gcm;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub(crate) mod isa;
#[cfg(target_arch = "x86_64")]
mod masked;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
mod prefetch;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vaes256;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vaes512;
#[cfg(target_arch = "x86_64")]
mod vl256;
#[cfg(target_arch = "x86_64")]
pub(crate) mod window2;

#[cfg(target_arch = "x86_64")]
pub(crate) use prefetch::{prefetch_first, prefetch_rest};

use crate::dispatch::{Engine, Proof};
use isa::{Isa, Task};

/// Runs a task compiled for the engine's instruction set; `None` on the portable engine.
#[inline]
pub(crate) fn run<T: Task>(engine: Engine, task: T) -> Option<T::Out> {
    match engine.0 {
        #[cfg(target_arch = "x86_64")]
        Proof::Vaes512(isa) if cfg!(kernel = "vaes512") => Some(isa.enter(task)),
        #[cfg(target_arch = "x86_64")]
        Proof::Vaes256(isa) if cfg!(kernel = "vaes256") => Some(isa.enter(task)),
        #[cfg(target_arch = "x86_64")]
        Proof::Aesni(isa) if cfg!(kernel = "aesni") => Some(isa.enter(task)),
        // A build without a kernel makes no proof of it either.
        _ => None,
    }
}

/// There is no portable way to ask.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn prefetch_first(_: &crate::key::Key) {}

/// There is no portable way to ask.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn prefetch_rest<const ROUNDS: usize>(_: &crate::key::Key) {}
