//! What outlives a data-plane process of one manual SA: two counters in a mapped file.

use core::sync::atomic::{AtomicU64, Ordering};

/// One manual SA's slot of the counter file. A single thread writes it at a time: the housekeeper before the
/// SA's owner knows of it, the owner from then on; by stores, never by a system call. It has a cache line to
/// itself, so that workers never write to each other's.
///
/// `reserved` is the first outbound sequence number that no earlier life may have used: it runs ahead of the
/// numbers in use by one to two steps, so that each step is on disk before its first number is used.
/// `authenticated` is the highest inbound number whose ICV held. A new life continues from both, so that the
/// peer sees no replay and accepts none.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Checkpoint {
    reserved: Checked,
    authenticated: Checked,
    /// Where this life of the process begins to count; 0 where that is `reserved` itself. Means nothing to
    /// the next life.
    start: AtomicU64,
    /// When the key was first installed, in seconds since 1970, and the same bits inverted above them; anything else is
    /// no time.
    born: AtomicU64,
}

impl Checkpoint {
    /// How many sequence numbers one step of a reservation covers: some 50 ms at ten million packets a
    /// second, in which it has to reach the disk. At most two steps are lost to a crash, of the 2³² numbers
    /// of an SA without ESN.
    pub const STEP: u64 = 1 << 19;

    /// The first outbound number that may not have been used.
    pub fn reserved(&self) -> u64 {
        self.reserved.load()
    }

    /// Promises that no number at or beyond `first_free` has been used.
    pub fn reserve(&self, first_free: u64) {
        self.reserved.store(first_free);
    }

    /// Reserves two steps ahead for an SA whose owner does not know of it yet: it will begin where the
    /// reservation was, or at `first` if that is later.
    pub fn begin(&self, first: u64) {
        let start = self.reserved().max(first).max(1);
        self.reserve(start.saturating_add(2 * Self::STEP));
        self.start.store(start, Ordering::Release);
    }

    /// Where an SA in this slot begins to count.
    pub fn start(&self) -> u64 {
        match self.start.load(Ordering::Acquire) {
            0 => self.reserved(),
            start => start,
        }
    }

    /// The highest inbound number whose ICV held in any life.
    pub fn authenticated(&self) -> u64 {
        self.authenticated.load()
    }

    /// Records a new highest authenticated inbound number.
    pub fn authenticate(&self, highest: u64) {
        self.authenticated.store(highest);
    }

    /// When the key was first installed, in seconds since 1970; `None` where that is not known.
    pub fn born(&self) -> Option<u32> {
        let [born, inverted] = halves(self.born.load(Ordering::Acquire));
        (born == !inverted).then_some(born)
    }

    /// Notes when the key was first installed.
    pub fn set_born(&self, seconds: u32) {
        self.born.store(u64::from(!seconds) << 32 | u64::from(seconds), Ordering::Release);
    }

    /// Makes it the slot of an SA that has not begun.
    pub fn clear(&self) {
        self.born.store(0, Ordering::Release);
        self.reserve(0);
        self.authenticate(0);
        self.start.store(0, Ordering::Release);
    }

    /// Takes the slot over from an earlier life, which may have ended between any two stores; false if what
    /// it holds does not match its check sums.
    pub fn take_over(&self) -> bool {
        let (Some(reserved), Some(authenticated)) = (self.reserved.verified(), self.authenticated.verified())
        else {
            return false;
        };
        self.reserve(reserved);
        self.authenticate(authenticated);
        self.start.store(0, Ordering::Release);
        true
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        let checkpoint = Self {
            reserved: Checked::default(),
            authenticated: Checked::default(),
            start: AtomicU64::new(0),
            born: AtomicU64::new(0),
        };
        checkpoint.clear();
        checkpoint
    }
}

/// The lower and the upper 32 bits.
fn halves(number: u64) -> [u32; 2] {
    [number, number >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or_default())
}

/// A number that can be verified after its writer was killed between any two stores: the number, its check
/// sum, the number again, written in this order. The check sum always matches one of the two.
#[derive(Debug, Default)]
#[repr(C)]
struct Checked {
    number: AtomicU64,
    sum: AtomicU64,
    again: AtomicU64,
}

impl Checked {
    fn load(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, number: u64) {
        // Release keeps the order on processors that would change it.
        self.number.store(number, Ordering::Release);
        self.sum.store(sum(number), Ordering::Release);
        self.again.store(number, Ordering::Release);
    }

    /// The number of the last store that was finished, or of the one that was not.
    fn verified(&self) -> Option<u64> {
        let stored = self.sum.load(Ordering::Acquire);
        [self.load(), self.again.load(Ordering::Acquire)].into_iter().find(|&number| sum(number) == stored)
    }
}

/// Not 0 for 0: a sector of zeros is damage, too.
#[inline]
fn sum(number: u64) -> u64 {
    (number ^ 0x706f_6c6c_7578_2e31).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_between_any_two_stores_leaves_the_old_or_the_new_number() {
        for stores in 0..=3 {
            let checked = Checked::default();
            checked.store(41);
            let words = [(&checked.number, 42), (&checked.sum, sum(42)), (&checked.again, 42)];
            for (word, value) in words.iter().take(stores) {
                word.store(*value, Ordering::Relaxed);
            }
            let expected = if stores < 2 { 41 } else { 42 };
            assert_eq!(checked.verified(), Some(expected), "after {stores} stores");
        }
    }

    #[test]
    fn damage_to_a_counter_is_detected_zeros_among_it() {
        let checkpoint = Checkpoint::default();
        checkpoint.reserve(9);
        assert!(checkpoint.take_over());
        checkpoint.reserved.number.store(8, Ordering::Relaxed);
        assert!(checkpoint.take_over(), "one copy is enough");
        assert_eq!(checkpoint.reserved(), 9, "and it repairs the other");
        checkpoint.reserved.sum.store(7, Ordering::Relaxed);
        assert!(!checkpoint.take_over());
        checkpoint.clear();
        for word in [&checkpoint.authenticated.number, &checkpoint.authenticated.sum] {
            word.store(0, Ordering::Relaxed);
        }
        assert!(!checkpoint.take_over(), "zeros");
    }

    #[test]
    fn an_sa_begins_where_the_last_reservation_ended_and_reserves_two_steps() {
        let checkpoint = Checkpoint::default();
        checkpoint.begin(1);
        assert_eq!((checkpoint.start(), checkpoint.reserved()), (1, 1 + 2 * Checkpoint::STEP));
        checkpoint.begin(1);
        assert_eq!(checkpoint.start(), 1 + 2 * Checkpoint::STEP);
        assert!(checkpoint.take_over());
        assert_eq!(checkpoint.start(), checkpoint.reserved(), "the next life begins at the reservation");
    }
}
