//! Asks the CPU for key contexts ahead of their use.
#![allow(unsafe_code, reason = "the prefetch intrinsic takes a pointer")]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::key::Key;

/// What the order of a burst reads of every key: the first line, which has the first round keys, too.
#[inline(always)]
pub(crate) fn prefetch_first(key: &Key) {
    prefetch_lines(key, [0]);
}

/// What else a short packet reads: the other round keys, of which AES-192 and AES-256 have a line more, and the last
/// eight powers.
#[inline(always)]
pub(crate) fn prefetch_rest<const ROUNDS: usize>(key: &Key) {
    prefetch_lines(key, [1, 2, 6, 7]);
    if ROUNDS > 10 {
        prefetch_lines(key, [3]);
    }
}

#[inline(always)]
fn prefetch_lines<const N: usize>(key: &Key, lines: [usize; N]) {
    let key = (&raw const *key).cast::<i8>();
    for line in lines {
        let line = key.wrapping_add(64 * line);
        // SAFETY: a prefetch is a hint and touches nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }
}
