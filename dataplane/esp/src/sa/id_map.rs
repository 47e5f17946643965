//! A fixed hash table from numbers to table indices: manual SPIs, SA ids, reqids.

use pollux_abi::SaIndex;

/// Open addressing with linear probes; a key of 0 marks a free slot, so that 0 can't be a key.
#[derive(Debug)]
pub(crate) struct IdMap {
    slots: Box<[(u64, SaIndex)]>,
    len: usize,
    capacity: usize,
}

impl IdMap {
    /// A table for `capacity` keys, at most half full.
    pub(crate) fn new(capacity: usize) -> Self {
        let slots = (capacity.max(1) * 2).next_power_of_two();
        Self { slots: vec![(0, SaIndex(0)); slots].into(), len: 0, capacity }
    }

    /// Whether there are no keys.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> Option<SaIndex> {
        let (slot_key, value) = self.slots[self.probe(key)];
        (slot_key == key && key != 0).then_some(value)
    }

    /// Sets the value of `key`; false where the table is full, or `key` is 0.
    #[must_use = "a full table did not take the key"]
    pub(crate) fn insert(&mut self, key: u64, value: SaIndex) -> bool {
        if key == 0 {
            return false;
        }
        let at = self.probe(key);
        if self.slots[at].0 == 0 {
            if self.len == self.capacity {
                return false;
            }
            self.len += 1;
        }
        self.slots[at] = (key, value);
        true
    }

    /// Removes `key`, and moves back what was pushed behind it.
    pub(crate) fn remove(&mut self, key: u64) {
        let mut hole = self.probe(key);
        if key == 0 || self.slots[hole].0 != key {
            return;
        }
        self.len -= 1;
        let last = self.slots.len() - 1;
        let mut at = hole;
        loop {
            self.slots[hole] = (0, SaIndex(0));
            loop {
                at = (at + 1) & last;
                if self.slots[at].0 == 0 {
                    return;
                }
                let home = self.home(self.slots[at].0);
                // Whether `home` does not lie between the hole and here, going round.
                if (at.wrapping_sub(home) & last) >= (at.wrapping_sub(hole) & last) {
                    break;
                }
            }
            self.slots[hole] = self.slots[at];
            hole = at;
        }
    }

    /// Where `key` is, or the free slot where it would go. One slot in two is free.
    #[inline]
    fn probe(&self, key: u64) -> usize {
        let last = self.slots.len() - 1;
        let mut at = self.home(key);
        while self.slots[at].0 != key && self.slots[at].0 != 0 {
            at = (at + 1) & last;
        }
        at
    }

    /// Fibonacci hashing. SPIs on the wire can be chosen by an attacker, who can thereby make a probe
    /// longer only if he knows or installs the manual SPIs.
    #[inline]
    const fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn full_table_refuses_new_keys_and_takes_known_ones() {
        let mut map = IdMap::new(2);
        assert!(map.is_empty());
        assert!(map.insert(1, SaIndex(1)) && map.insert(2, SaIndex(2)));
        assert!(!map.insert(3, SaIndex(3)));
        assert!(!map.insert(0, SaIndex(3)));
        assert!(map.insert(2, SaIndex(7)));
        assert_eq!((map.find(2), map.find(3), map.find(0)), (Some(SaIndex(7)), None, None));
    }

    proptest! {
        #[test]
        fn map_behaves_as_the_standard_one(steps in proptest::collection::vec((1u64..40, any::<bool>()), 0..200)) {
            let mut map = IdMap::new(40);
            let mut model = HashMap::new();
            for (step, (key, insert)) in (0u32..).zip(steps) {
                // Multiples of 2^33 share few home slots, so that probes are long.
                let key = key << 33;
                if insert {
                    prop_assert!(map.insert(key, SaIndex(step)));
                    model.insert(key, SaIndex(step));
                } else {
                    map.remove(key);
                    model.remove(&key);
                }
                for key in (1..40).map(|key: u64| key << 33) {
                    prop_assert_eq!(map.find(key), model.get(&key).copied());
                }
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
        }
    }
}
