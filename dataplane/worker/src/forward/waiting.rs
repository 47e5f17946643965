//! Packets that wait for an unresolved neighbour: few, and not for long. Neighbours that the kernel was asked for: many,
//! since a host that scans a subnet must not stop the resolution of all others.

use core::net::IpAddr;

use arrayvec::ArrayVec;
use pollux_packet::{Meta, Packet};

use super::neighbour::NeighbourKey;

/// Packets for one neighbour: about what a call sends while an ARP answer is under way.
pub(crate) const PER_NEIGHBOUR: usize = 8;

/// Packets in all; the oldest makes room for a new one.
pub(crate) const PACKETS_MAX: usize = 128;

/// How long a packet waits. The kernel asks three times, once a second; media are worthless long before.
pub(crate) const WAIT_NS: u64 = 1_000_000_000;

/// How often the kernel is asked again for a neighbour while packets for it come.
const ASK_INTERVAL_NS: u64 = 250_000_000;

struct Held {
    key: NeighbourKey,
    since_ns: u64,
    packet: Packet,
    meta: Meta,
}

/// What became of a packet that is to wait.
pub(crate) struct Added {
    /// Whether the kernel is to be asked now.
    pub(crate) ask: bool,
    /// The packet for which there is no room: this one, or the oldest of all.
    pub(crate) dropped: Option<Packet>,
}

/// The packets, oldest first, and the neighbours that were asked for.
pub(crate) struct Waiting {
    held: ArrayVec<Held, PACKETS_MAX>,
    asked: Asked,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { held: ArrayVec::new(), asked: Asked::new() }
    }
}

impl Waiting {
    /// Keeps a packet. Whether there is room for it or not, its neighbour is asked for.
    pub(crate) fn add(&mut self, key: NeighbourKey, packet: Packet, meta: Meta, now_ns: u64) -> Added {
        let ask = self.asked.is_due(&key, now_ns);
        if self.held.iter().filter(|held| held.key == key).count() >= PER_NEIGHBOUR {
            return Added { ask, dropped: Some(packet) };
        }
        let oldest = if self.held.is_full() { Some(self.held.remove(0).packet) } else { None };
        self.held.push(Held { key, since_ns: now_ns, packet, meta });
        Added { ask, dropped: oldest }
    }

    /// The kernel could not be asked: the next packet asks again.
    pub(crate) fn not_asked(&mut self, key: &NeighbourKey) {
        self.asked.forget(key);
    }

    /// The oldest packet that waits for `key`, of which the kernel has said something.
    pub(crate) fn take_for(&mut self, key: &NeighbourKey) -> Option<(Packet, Meta)> {
        self.asked.forget(key);
        let at = self.held.iter().position(|held| held.key == *key)?;
        let Held { packet, meta, .. } = self.held.remove(at);
        Some((packet, meta))
    }

    /// The oldest packet, if it has waited too long.
    pub(crate) fn take_expired(&mut self, now_ns: u64) -> Option<Packet> {
        let oldest = self.held.first()?;
        (now_ns.wrapping_sub(oldest.since_ns) >= WAIT_NS).then(|| self.held.remove(0).packet)
    }

    /// How many packets wait.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }
}

/// When the kernel was last asked for a neighbour: a table of [`SETS`] times [`WAYS`], in which the oldest makes room.
struct Asked(Box<[Set]>);

/// Neighbours whose keys fall together, each with the time of the last question.
type Set = [Option<(NeighbourKey, u64)>; WAYS];

const SETS: usize = 512;
const WAYS: usize = 4;

impl Asked {
    fn new() -> Self {
        Self(vec![[None; WAYS]; SETS].into())
    }

    /// Whether the kernel is to be asked for `key` now; if so, it counts as asked.
    fn is_due(&mut self, key: &NeighbourKey, now_ns: u64) -> bool {
        let set = self.set(key);
        if let Some((_, last_ns)) = set.iter_mut().flatten().find(|(asked, _)| asked == key) {
            let due = now_ns.wrapping_sub(*last_ns) >= ASK_INTERVAL_NS;
            if due {
                *last_ns = now_ns;
            }
            return due;
        }
        // An empty place is older than any other.
        if let Some(oldest) = set.iter_mut().min_by_key(|place| place.map(|(_, last_ns)| last_ns)) {
            *oldest = Some((*key, now_ns));
        }
        true
    }

    fn forget(&mut self, key: &NeighbourKey) {
        for place in self.set(key) {
            if place.is_some_and(|(asked, _)| asked == *key) {
                *place = None;
            }
        }
    }

    fn set(&mut self, key: &NeighbourKey) -> &mut Set {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into the hash")]
        let bits = match key.address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() as u64) ^ ((v6.to_bits() >> 64) as u64).rotate_left(17),
        };
        let mixed = (bits ^ u64::from(key.port.0) << 56).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (mixed >> 32) as usize & (SETS - 1);
        &mut self.0[index]
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use pollux_packet::PortSlot;

    use super::*;

    fn key(n: u32) -> NeighbourKey {
        NeighbourKey { port: PortSlot(1), address: Ipv4Addr::from_bits(0x0a00_0000 + n).into() }
    }

    #[test]
    fn each_neighbour_is_asked_for_once_in_an_interval_whatever_the_others_do() {
        let mut asked = Asked::new();
        let mut again = 0;
        for n in 0..1_000 {
            assert!(asked.is_due(&key(n), u64::from(n)), "a new one is asked for at once");
            again += u32::from(asked.is_due(&key(n), u64::from(n) + 1));
        }
        assert_eq!(again, 0);
        assert!(!asked.is_due(&key(999), ASK_INTERVAL_NS));
        assert!(asked.is_due(&key(999), 999 + ASK_INTERVAL_NS));
        asked.forget(&key(999));
        assert!(asked.is_due(&key(999), 1_000 + ASK_INTERVAL_NS), "resolved, and lost again");
    }

    #[test]
    fn a_scan_of_a_large_network_leaves_newcomers_their_first_question() {
        let mut asked = Asked::new();
        for n in 0..100_000 {
            assert!(asked.is_due(&key(n), u64::from(n)));
        }
        assert_eq!(asked.0.iter().flatten().flatten().count(), SETS * WAYS);
    }
}
