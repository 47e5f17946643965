//! A mapping of a file, seen as atomic words.
//!
//! Another process, or the kernel, may write to the memory at any moment. So nobody gets a plain
//! reference into it: words are read and written as relaxed atomics, and what is copied out is checked
//! afterwards. Each word is accessed at one width only: 32 bits for ring indices, 64 for the rest.
#![allow(unsafe_code, reason = "maps memory and hands out references to atomics in it")]

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64};
use std::os::fd::AsFd;

use pollux_abi::Checkpoint;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// A shared mapping, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` octets of `fd` from `offset`, readable, writable and shared.
    ///
    /// `populate` faults all pages in at once, which is where missing huge pages show as `ENOMEM`. For a
    /// file that can shrink, an access beyond its end raises SIGBUS: seal it, or keep others from it.
    pub fn new(fd: impl AsFd, len: usize, offset: u64, populate: bool) -> Result<Self, Errno> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let flags = if populate { MapFlags::SHARED | MapFlags::POPULATE } else { MapFlags::SHARED };
        // SAFETY: a null address lets the kernel choose, so no existing mapping is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                fd.as_fd(),
                offset,
            )
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    /// Octets in the mapping.
    pub fn len_bytes(&self) -> usize {
        self.len
    }

    /// First octet, for code that has its own rules about the memory (UMEM, AF_XDP rings).
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The 32-bit word at `offset`; `None` outside the mapping or off a multiple of 4.
    pub fn word32(&self, offset: usize) -> Option<&AtomicU32> {
        let at = self.place(offset, 4, 4)?;
        // SAFETY: `place` has checked that four octets at `offset` lie inside the mapping and are aligned;
        // the mapping lives as long as `self`, and every bit pattern is an `AtomicU32`.
        Some(unsafe { at.cast::<AtomicU32>().as_ref() })
    }

    /// `count` 64-bit words from `offset`; `None` where not all lie inside, or off a multiple of 8.
    pub fn words(&self, offset: usize, count: usize) -> Option<&[AtomicU64]> {
        let at = self.place(offset, count.checked_mul(8)?, 8)?;
        let words = NonNull::slice_from_raw_parts(at.cast::<AtomicU64>(), count);
        // SAFETY: `place` has checked that `count` times eight octets at `offset` lie inside the mapping
        // and are aligned; the mapping lives as long as `self`, and every bit pattern is an `AtomicU64`.
        Some(unsafe { words.as_ref() })
    }

    /// Gives the mapping up to the rest of the process's life and returns `count` checkpoints in it.
    pub(crate) fn leak_checkpoints(self, offset: usize, count: usize) -> Option<&'static [Checkpoint]> {
        let len = count.checked_mul(size_of::<Checkpoint>())?;
        let at = self.place(offset, len, align_of::<Checkpoint>())?;
        core::mem::forget(self);
        let checkpoints = NonNull::slice_from_raw_parts(at.cast::<Checkpoint>(), count);
        // SAFETY: `place` has checked size and alignment; the mapping is never unmapped, as its owner has
        // been forgotten; a `Checkpoint` consists of atomics, for which every bit pattern is valid.
        Some(unsafe { checkpoints.as_ref() })
    }

    /// The address of `len` octets at `offset`, if they lie inside and are aligned to `align`.
    fn place(&self, offset: usize, len: usize, align: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.len || !offset.is_multiple_of(align) {
            return None;
        }
        // SAFETY: `offset` is at most `self.len`, so the result lies inside the mapping or just behind it.
        Some(unsafe { self.base.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those of a mapping that this value alone owns; references into it
        // borrow from `self` and cannot outlive it. Failure would leave it mapped, which is harmless.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

// SAFETY: the memory is reached through atomics only, and unmapping may happen on any thread.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives references to atomics only.
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::*;
    use crate::memfd::{Memfd, Pages};

    fn mapping(len: usize) -> Mapping {
        let memfd = Memfd::create("pollux-test", len, Pages::Normal).expect("memfd");
        Mapping::new(&memfd, len, 0, false).expect("mapping")
    }

    #[test]
    fn words_outside_or_unaligned_are_refused() {
        let map = mapping(4096);
        assert!(map.word32(4092).is_some());
        assert!(map.word32(4096).is_none());
        assert!(map.word32(2).is_none());
        assert!(map.word32(usize::MAX - 3).is_none());
        assert!(map.words(0, 512).is_some());
        assert!(map.words(8, 512).is_none());
        assert!(map.words(4, 1).is_none());
        assert!(map.words(0, usize::MAX / 4).is_none());
        assert!(map.words(4096, 0).is_some_and(<[AtomicU64]>::is_empty));
    }

    #[test]
    fn last_word_lies_before_a_guard_page() {
        // The file ends with its only page; one octet further would be SIGBUS.
        let memfd = Memfd::create("pollux-test", 4096, Pages::Normal).expect("memfd");
        let map = Mapping::new(&memfd, 8192, 0, false).expect("mapping");
        let words = map.words(0, 512).expect("first page");
        words[511].store(7, Ordering::Relaxed);
        assert_eq!(words[511].load(Ordering::Relaxed), 7);
        assert_eq!(map.word32(4092).map(|w| w.load(Ordering::Relaxed)), Some(0));
    }

    #[test]
    fn two_mappings_of_one_file_see_each_other_and_unmap_alone() {
        let memfd = Memfd::create("pollux-test", 4096, Pages::Normal).expect("memfd");
        let one = Mapping::new(&memfd, 4096, 0, true).expect("mapping");
        let two = Mapping::new(&memfd, 4096, 0, false).expect("mapping");
        one.word32(128).expect("inside").store(9, Ordering::Release);
        drop(one);
        assert_eq!(two.word32(128).expect("inside").load(Ordering::Acquire), 9);
    }
}
