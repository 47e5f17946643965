//! Link-layer addresses of neighbours: a worker's copy of what the kernel has resolved.

use core::net::IpAddr;

use pollux_packet::PortSlot;
use pollux_packet::ethernet::Mac;

/// A neighbour by port and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourKey {
    /// The port it is behind.
    pub port: PortSlot,
    /// Its address on that link.
    pub address: IpAddr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: NeighbourKey,
    mac: Mac,
    /// When the kernel was last told that the neighbour is in use; 0: not yet.
    used_ns: u64,
}

/// A hash table of fixed size with linear probing; nothing is allocated after [`Self::new`].
#[derive(Debug)]
pub struct NeighbourTable {
    entries: Vec<Option<Entry>>,
    len: usize,
}

impl NeighbourTable {
    /// A table that holds up to `capacity` neighbours.
    pub fn new(capacity: usize) -> Self {
        // At most half full, so that probes stay short.
        let slots = (capacity.max(1) * 2).next_power_of_two();
        Self { entries: vec![None; slots], len: 0 }
    }

    /// How many neighbours are known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The link-layer address of a neighbour.
    pub fn lookup(&self, key: &NeighbourKey) -> Option<Mac> {
        let at = self.find(key);
        self.entries[at].map(|entry| entry.mac)
    }

    /// As [`Self::lookup`], with the time of its last use to be written.
    pub(crate) fn lookup_mut(&mut self, key: &NeighbourKey) -> Option<(Mac, &mut u64)> {
        let at = self.find(key);
        self.entries[at].as_mut().map(|entry| (entry.mac, &mut entry.used_ns))
    }

    /// Learns or changes a neighbour; `false` when the table is full.
    pub fn insert(&mut self, key: NeighbourKey, mac: Mac) -> bool {
        let at = self.find(&key);
        if self.entries[at].is_none() {
            if (self.len + 1) * 2 > self.entries.len() {
                return false;
            }
            self.len += 1;
        }
        let used_ns = self.entries[at].map_or(0, |entry| entry.used_ns);
        self.entries[at] = Some(Entry { key, mac, used_ns });
        true
    }

    /// Forgets a neighbour.
    pub fn remove(&mut self, key: &NeighbourKey) {
        let mut hole = self.find(key);
        if self.entries[hole].take().is_none() {
            return;
        }
        self.len -= 1;
        // Moves back what was pushed past the hole, so that no probe ends early.
        let mask = self.entries.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(moved) = &self.entries[at] else { return };
            let home = self.home(&moved.key);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.entries[hole] = self.entries[at].take();
                hole = at;
            }
        }
    }

    /// Forgets every neighbour behind `port`.
    pub fn remove_port(&mut self, port: PortSlot) {
        for at in 0..self.entries.len() {
            while let Some(entry) = self.entries[at].filter(|entry| entry.key.port == port) {
                self.remove(&entry.key);
            }
        }
    }

    /// The slot that holds `key`, or the empty one where it belongs.
    fn find(&self, key: &NeighbourKey) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = self.home(key);
        while let Some(held) = &self.entries[at] {
            if held.key == *key {
                break;
            }
            at = (at + 1) & mask;
        }
        at
    }

    fn home(&self, key: &NeighbourKey) -> usize {
        let bits = match key.address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the hash")]
            IpAddr::V6(v6) => (v6.to_bits() as u64) ^ ((v6.to_bits() >> 64) as u64).rotate_left(17),
        };
        let mixed = (bits ^ u64::from(key.port.0) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (mixed >> 32) as usize;
        index & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key(n: u8) -> NeighbourKey {
        NeighbourKey { port: PortSlot(n % 3), address: Ipv4Addr::new(10, 0, 0, n).into() }
    }

    #[test]
    fn a_full_table_refuses_new_neighbours_and_takes_changes() {
        let mut table = NeighbourTable::new(4);
        let held = (0..=u8::MAX).take_while(|&n| table.insert(key(n), Mac([n; 6]))).count();
        assert_eq!(held, table.len());
        assert!(held >= 4);
        assert!(table.insert(key(0), Mac([9; 6])));
        assert_eq!(table.lookup(&key(0)), Some(Mac([9; 6])));
    }

    #[test]
    fn removing_a_port_forgets_its_neighbours_alone() {
        let mut table = NeighbourTable::new(64);
        for n in 0..60 {
            assert!(table.insert(key(n), Mac([n; 6])));
        }
        table.remove_port(PortSlot(1));
        for n in 0..60 {
            assert_eq!(table.lookup(&key(n)).is_some(), n % 3 != 1, "neighbour {n}");
        }
        assert_eq!(table.len(), 40);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn table_agrees_with_a_map(steps in proptest::collection::vec((any::<bool>(), 0u8..48, any::<u8>()), 0..300)) {
            let mut table = NeighbourTable::new(64);
            let mut model = HashMap::new();
            for (insert, n, mac) in steps {
                if insert {
                    prop_assert!(table.insert(key(n), Mac([mac; 6])));
                    model.insert(key(n), Mac([mac; 6]));
                } else {
                    table.remove(&key(n));
                    model.remove(&key(n));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for n in 0..48 {
                prop_assert_eq!(table.lookup(&key(n)), model.get(&key(n)).copied());
            }
        }
    }
}
