//! Hints to the CPU: prefetch, and its time-stamp counter.
#![allow(
    unsafe_code,
    reason = "prefetch and rdtsc are intrinsics; neither touches memory that Rust knows of"
)]

/// Octets of a cache line.
const LINE: usize = 64;

/// Asks for the first cache line of `value`.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    line(core::ptr::from_ref(value).cast::<u8>());
}

/// Asks for up to `lines` cache lines of `value`, from its start.
#[inline(always)]
pub fn prefetch_lines<T>(value: &T, lines: usize) {
    let start = core::ptr::from_ref(value).cast::<u8>();
    for index in 0..lines.min(size_of::<T>().div_ceil(LINE)) {
        line(start.wrapping_add(index * LINE));
    }
}

/// The time-stamp counter; 0 on CPUs without one. It counts at a fixed rate that is not the core's clock.
#[inline(always)]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: `rdtsc` is part of every x86-64 CPU and reads no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        0
    }
}

#[inline(always)]
fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 (SSE, part of x86-64) never faults, whatever the address, and changes no data.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetching_beyond_any_mapping_does_not_fault() {
        line(core::ptr::null());
        line(core::ptr::without_provenance(usize::MAX));
        prefetch_lines(&[0u8; 10], 1_000_000);
        prefetch::<[u8]>(&[]);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn time_stamps_grow() {
        let first = tsc();
        assert!(tsc() >= first && first > 0);
    }
}
