//! Counters that one thread writes and any thread reads, without a locked instruction.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::drop_reason::DropReason;

/// A counter with a single writer: a plain load and a plain store, never a read-modify-write.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this; concurrent adds would lose counts, nothing worse.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value at some recent moment.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter for each [`DropReason`].
#[derive(Debug)]
#[repr(C, align(64))]
pub struct DropCounters([Counter; DropReason::COUNT]);

impl DropCounters {
    /// Counts `n` packets dropped for `reason`.
    #[inline]
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason.index()].add(n);
    }

    /// Packets dropped for `reason` so far.
    pub fn value(&self, reason: DropReason) -> u64 {
        self.0[reason.index()].value()
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; DropReason::COUNT])
    }
}

/// What one SA has seen. Written by its owner alone, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct SaCounters {
    /// Packets sealed, or opened and authenticated.
    pub packets: Counter,
    /// Octets of inner packets.
    pub bytes: Counter,
    /// Monotonic nanoseconds of the last packet; 0 before the first.
    pub last_used_ns: Counter,
    /// Highest sequence number sent or authenticated.
    pub highest_seq: Counter,
    /// Replayed or too old (inbound).
    pub replay_errors: Counter,
    /// Integrity check failed (inbound).
    pub icv_errors: Counter,
    /// Sequence numbers that were passed over and have left the window unseen (inbound).
    pub lost: Counter,
    /// Decrypted packets outside the selectors (inbound).
    pub selector_errors: Counter,
}
