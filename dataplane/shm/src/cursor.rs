//! Index rules of a ring with one producer and one consumer.
//!
//! Indices run freely through all of `u32` and wrap; a slot is an index masked. Either side keeps its own
//! index in private memory, publishes it with Release, and caches the other's, which it reads with
//! Acquire only when the cached value no longer suffices. The other side may lie: an index that no
//! honest peer could have published is [`CursorError`], and nothing is read or written because of it.
//!
//! The cursors hold no pointers: the caller passes the two shared words in. So the same rules serve the
//! command and event rings and the four rings of an AF_XDP socket, and need no `unsafe`.

use core::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

/// The peer published an index that it cannot have reached.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("ring index {theirs} is impossible beside ours, {ours}, in {slots} slots")]
pub struct CursorError {
    /// Our index.
    pub ours: u32,
    /// The index that the peer published.
    pub theirs: u32,
    /// Slots in the ring.
    pub slots: u32,
}

/// The writing side's view of a ring.
#[derive(Debug)]
pub struct ProducerCursor {
    // hot, written
    next: u32,
    consumer_cached: u32,
    // hot, read
    mask: u32,
}

impl ProducerCursor {
    /// A cursor for a ring of `slots` (a power of two) that continues at `start`; `None` otherwise.
    pub const fn new(slots: u32, start: u32) -> Option<Self> {
        if !slots.is_power_of_two() || slots > SLOTS_MAX {
            return None;
        }
        Some(Self { next: start, consumer_cached: start, mask: slots - 1 })
    }

    /// How many slots may be written now, at most `want`.
    #[inline]
    pub fn reserve(&mut self, consumer: &AtomicU32, want: u32) -> Result<u32, CursorError> {
        let free = self.free_cached();
        if free >= want {
            return Ok(want);
        }
        let theirs = consumer.load(Ordering::Acquire);
        if self.next.wrapping_sub(theirs) > self.slots() {
            return Err(CursorError { ours: self.next, theirs, slots: self.slots() });
        }
        self.consumer_cached = theirs;
        Ok(self.free_cached().min(want))
    }

    /// The slot of the `ahead`-th reserved entry.
    #[inline]
    pub fn slot(&self, ahead: u32) -> u32 {
        self.next.wrapping_add(ahead) & self.mask
    }

    /// Publishes `count` written slots, of those last reserved.
    #[inline]
    pub fn commit(&mut self, producer: &AtomicU32, count: u32) {
        debug_assert!(count <= self.free_cached(), "commit beyond the reservation");
        self.next = self.next.wrapping_add(count);
        producer.store(self.next, Ordering::Release);
    }

    /// Written slots that the peer has not yet given back, as far as it has told.
    pub fn outstanding(&self, consumer: &AtomicU32) -> Result<u32, CursorError> {
        let theirs = consumer.load(Ordering::Acquire);
        let outstanding = self.next.wrapping_sub(theirs);
        if outstanding > self.slots() {
            return Err(CursorError { ours: self.next, theirs, slots: self.slots() });
        }
        Ok(outstanding)
    }

    /// Slots in the ring.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    fn free_cached(&self) -> u32 {
        self.slots() - self.next.wrapping_sub(self.consumer_cached)
    }
}

/// The reading side's view of a ring.
#[derive(Debug)]
pub struct ConsumerCursor {
    // hot, written
    next: u32,
    producer_cached: u32,
    // hot, read
    mask: u32,
}

impl ConsumerCursor {
    /// A cursor for a ring of `slots` (a power of two) that continues at `start`; `None` otherwise.
    pub const fn new(slots: u32, start: u32) -> Option<Self> {
        if !slots.is_power_of_two() || slots > SLOTS_MAX {
            return None;
        }
        Some(Self { next: start, producer_cached: start, mask: slots - 1 })
    }

    /// How many slots may be read now, at most `want`.
    #[inline]
    pub fn available(&mut self, producer: &AtomicU32, want: u32) -> Result<u32, CursorError> {
        let cached = self.producer_cached.wrapping_sub(self.next);
        if cached >= want {
            return Ok(want);
        }
        let theirs = producer.load(Ordering::Acquire);
        let filled = theirs.wrapping_sub(self.next);
        if filled > self.slots() {
            return Err(CursorError { ours: self.next, theirs, slots: self.slots() });
        }
        self.producer_cached = theirs;
        Ok(filled.min(want))
    }

    /// The slot of the `ahead`-th entry that is available.
    #[inline]
    pub fn slot(&self, ahead: u32) -> u32 {
        self.next.wrapping_add(ahead) & self.mask
    }

    /// Gives `count` slots back, of those last found available.
    #[inline]
    pub fn release(&mut self, consumer: &AtomicU32, count: u32) {
        debug_assert!(count <= self.producer_cached.wrapping_sub(self.next), "release beyond what was read");
        self.next = self.next.wrapping_add(count);
        consumer.store(self.next, Ordering::Release);
    }

    /// Slots in the ring.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.mask + 1
    }
}

/// With at most half of all indices in use, a full ring and an empty one never look alike.
const SLOTS_MAX: u32 = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indices_wrap_at_u32_max() {
        let start = u32::MAX - 2;
        let (shared_p, shared_c) = (AtomicU32::new(start), AtomicU32::new(start));
        let mut p = ProducerCursor::new(4, start).expect("power of two");
        let mut c = ConsumerCursor::new(4, start).expect("power of two");
        let mut slots = [0_u32; 4];
        let (mut written, mut read) = (0, 0);
        for _ in 0..10 {
            let free = p.reserve(&shared_c, 3).expect("honest");
            for k in 0..free {
                slots[p.slot(k) as usize] = written;
                written += 1;
            }
            p.commit(&shared_p, free);
            let filled = c.available(&shared_p, 2).expect("honest");
            for k in 0..filled {
                assert_eq!(slots[c.slot(k) as usize], read);
                read += 1;
            }
            c.release(&shared_c, filled);
        }
        assert_eq!(read, 20);
        assert!(shared_p.load(Ordering::Relaxed) < 100, "the index went through zero");
    }

    #[test]
    fn full_ring_takes_no_more_and_empty_ring_gives_nothing() {
        let (shared_p, shared_c) = (AtomicU32::new(0), AtomicU32::new(0));
        let mut p = ProducerCursor::new(8, 0).expect("power of two");
        let mut c = ConsumerCursor::new(8, 0).expect("power of two");
        assert_eq!(c.available(&shared_p, 1), Ok(0));
        assert_eq!(p.reserve(&shared_c, 100), Ok(8));
        p.commit(&shared_p, 8);
        assert_eq!(p.reserve(&shared_c, 1), Ok(0));
        assert_eq!(p.outstanding(&shared_c), Ok(8));
        assert_eq!(c.available(&shared_p, 100), Ok(8));
    }

    #[test]
    fn sizes_that_cannot_be_masked_are_refused() {
        for slots in [0, 3, 1000, u32::MAX] {
            assert!(ProducerCursor::new(slots, 0).is_none());
            assert!(ConsumerCursor::new(slots, 0).is_none());
        }
    }

    proptest! {
        #[test]
        fn hostile_index_never_grants_more_than_the_ring(start: u32, lies in prop::collection::vec(any::<u32>(), 1..50)) {
            let (shared_p, shared_c) = (AtomicU32::new(start), AtomicU32::new(start));
            let mut p = ProducerCursor::new(16, start).expect("power of two");
            let mut c = ConsumerCursor::new(16, start).expect("power of two");
            for lie in lies {
                shared_p.store(lie, Ordering::Relaxed);
                shared_c.store(lie, Ordering::Relaxed);
                match c.available(&shared_p, 32) {
                    Ok(n) => {
                        prop_assert!(n <= 16);
                        (0..n).for_each(|k| assert!(c.slot(k) < 16));
                        c.release(&shared_c, n);
                    }
                    Err(error) => prop_assert_eq!(error.slots, 16),
                }
                shared_c.store(lie, Ordering::Relaxed);
                if let Ok(n) = p.reserve(&shared_c, 32) {
                    prop_assert!(n <= 16);
                    p.commit(&shared_p, n);
                }
            }
        }
    }
}
