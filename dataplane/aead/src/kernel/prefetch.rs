//! Asks the CPU for key contexts ahead of their use.
#![allow(unsafe_code, reason = "the prefetch intrinsic takes a pointer")]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::key::Key;

/// The lines that a short packet touches: header and round keys of AES-128, and the last eight powers. The others
/// are their neighbours, which the CPU's own prefetcher brings along.
const LINES: [usize; 5] = [0, 1, 2, 6, 7];

#[inline]
pub(crate) fn prefetch(key: &Key) {
    let lines = (&raw const *key).cast::<i8>();
    for line in LINES {
        let line = lines.wrapping_add(64 * line);
        // SAFETY: a prefetch is a hint and touches nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
}
