//! What outlives a data-plane process of one manual SA: two counters in a mapped file.

use core::sync::atomic::{AtomicU64, Ordering};

/// One manual SA's slot of the counter file. A single worker writes it; a store, never a system call.
/// It has a cache line to itself, so that workers never write to each other's.
///
/// `reserved` is the first outbound sequence number that no earlier life may have used: the owner moves
/// it ahead in steps *before* the first number of a step is used. `authenticated` is the highest
/// inbound number whose ICV held. A new life continues from both, so that the peer sees no replay and
/// accepts none.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Checkpoint {
    reserved: AtomicU64,
    authenticated: AtomicU64,
}

impl Checkpoint {
    /// How many sequence numbers one step of a reservation covers. One store in 4,096 packets, and at
    /// most so many numbers lost to a crash.
    pub const STEP: u64 = 4_096;

    /// The first outbound number that may not have been used.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Promises that no number at or beyond `first_free` has been used.
    pub fn reserve(&self, first_free: u64) {
        self.reserved.store(first_free, Ordering::Release);
    }

    /// The highest inbound number whose ICV held in any life.
    pub fn authenticated(&self) -> u64 {
        self.authenticated.load(Ordering::Acquire)
    }

    /// Records a new highest authenticated inbound number.
    pub fn authenticate(&self, highest: u64) {
        self.authenticated.store(highest, Ordering::Release);
    }
}
