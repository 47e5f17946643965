//! The kernels: one module per instruction set, and the portable path.

#[cfg(target_arch = "x86_64")]
pub(crate) mod aesni;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vaes256;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vaes512;

/// Asks for every cache line of a key.
#[inline]
pub(crate) fn prefetch(key: &crate::key::Key) {
    let _ = key;
}
