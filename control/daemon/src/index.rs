//! Places in the data plane's SA tables: which are taken, which rest, which are free.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use pollux_abi::SaIndex;

/// A place rests for so long after its SA was removed: packets of the old SA may still be on their way,
/// and must not be counted against a new one.
const REST: Duration = Duration::from_secs(5);

/// The places of one direction.
#[derive(Debug)]
pub(crate) struct IndexPool {
    capacity: u32,
    fresh: u32,
    taken: HashSet<SaIndex>,
    resting: VecDeque<(Instant, SaIndex)>,
}

impl IndexPool {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 0, taken: HashSet::new(), resting: VecDeque::new() }
    }

    /// A free place: one that was never used, else the one that has rested longest, and long enough.
    pub(crate) fn allocate(&mut self, now: Instant) -> Option<SaIndex> {
        while self.fresh < self.capacity {
            let index = SaIndex(self.fresh);
            self.fresh += 1;
            if self.taken.insert(index) {
                return Some(index);
            }
        }
        while let Some(&(freed, index)) = self.resting.front() {
            if now.saturating_duration_since(freed) < REST {
                return None;
            }
            self.resting.pop_front();
            if self.taken.insert(index) {
                return Some(index);
            }
        }
        None
    }

    /// Takes a certain place; false if it is taken, resting or beyond the table.
    pub(crate) fn claim(&mut self, index: SaIndex) -> bool {
        let resting = self.resting.iter().any(|&(_, other)| other == index);
        index.0 < self.capacity && !resting && self.taken.insert(index)
    }

    /// Gives a place back; it rests first.
    pub(crate) fn release(&mut self, index: SaIndex, now: Instant) {
        if self.taken.remove(&index) {
            self.resting.push_back((now, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_place_rests_before_it_is_given_again() {
        let mut pool = IndexPool::new(2);
        let start = Instant::now();
        assert_eq!(pool.allocate(start), Some(SaIndex(0)));
        assert_eq!(pool.allocate(start), Some(SaIndex(1)));
        assert_eq!(pool.allocate(start), None);
        pool.release(SaIndex(0), start);
        assert!(!pool.claim(SaIndex(0)));
        assert_eq!(pool.allocate(start + REST / 2), None);
        assert_eq!(pool.allocate(start + REST), Some(SaIndex(0)));
    }

    #[test]
    fn a_claimed_place_is_not_given() {
        let mut pool = IndexPool::new(2);
        assert!(pool.claim(SaIndex(0)));
        assert!(!pool.claim(SaIndex(0)));
        assert!(!pool.claim(SaIndex(2)));
        assert_eq!(pool.allocate(Instant::now()), Some(SaIndex(1)));
        assert_eq!(pool.allocate(Instant::now()), None);
    }
}
