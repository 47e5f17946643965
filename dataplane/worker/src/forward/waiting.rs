//! Packets that wait for an unresolved neighbour: few, and not for long.

use arrayvec::ArrayVec;
use pollux_packet::{Meta, Packet};

use super::neighbour::NeighbourKey;

/// Packets for one neighbour: about what a call sends while an ARP answer is under way.
pub(crate) const PER_NEIGHBOUR: usize = 8;

/// Packets in all.
pub(crate) const PACKETS_MAX: usize = 128;

/// Neighbours that are waited for.
pub(crate) const NEIGHBOURS_MAX: usize = 32;

/// How long a packet waits. The kernel asks three times, once a second; media are worthless long before.
pub(crate) const WAIT_NS: u64 = 1_000_000_000;

/// How often the kernel is asked again for a neighbour while packets wait.
const ASK_INTERVAL_NS: u64 = 250_000_000;

struct PendingNeighbour {
    key: NeighbourKey,
    packets: usize,
    /// When the kernel was last asked.
    last_ns: u64,
}

struct Held {
    key: NeighbourKey,
    since_ns: u64,
    packet: Packet,
    meta: Meta,
}

/// The packets, oldest first, and the neighbours they wait for.
#[derive(Default)]
pub(crate) struct Waiting {
    held: ArrayVec<Held, PACKETS_MAX>,
    asked: ArrayVec<PendingNeighbour, NEIGHBOURS_MAX>,
}

impl Waiting {
    /// Keeps a packet; whether the kernel is to be asked now. A full queue gives the packet back.
    pub(crate) fn add(
        &mut self,
        key: NeighbourKey,
        packet: Packet,
        meta: Meta,
        now_ns: u64,
    ) -> Result<bool, Packet> {
        if self.held.is_full() {
            return Err(packet);
        }
        let at = match self.asked.iter().position(|asked| asked.key == key) {
            Some(at) => at,
            None if self.asked.is_full() => return Err(packet),
            None => {
                self.asked.push(PendingNeighbour {
                    key,
                    packets: 0,
                    last_ns: now_ns.wrapping_sub(ASK_INTERVAL_NS),
                });
                self.asked.len() - 1
            }
        };
        let asked = &mut self.asked[at];
        if asked.packets == PER_NEIGHBOUR {
            return Err(packet);
        }
        asked.packets += 1;
        let is_due = now_ns.wrapping_sub(asked.last_ns) >= ASK_INTERVAL_NS;
        if is_due {
            asked.last_ns = now_ns;
        }
        self.held.push(Held { key, since_ns: now_ns, packet, meta });
        Ok(is_due)
    }

    /// The oldest packet that waits for `key`.
    pub(crate) fn take_for(&mut self, key: &NeighbourKey) -> Option<(Packet, Meta)> {
        let at = self.held.iter().position(|held| held.key == *key)?;
        Some(self.remove(at))
    }

    /// The oldest packet, if it has waited too long.
    pub(crate) fn take_expired(&mut self, now_ns: u64) -> Option<Packet> {
        let oldest = self.held.first()?;
        (now_ns.wrapping_sub(oldest.since_ns) >= WAIT_NS).then(|| self.remove(0).0)
    }

    /// How many packets wait.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    fn remove(&mut self, at: usize) -> (Packet, Meta) {
        let Held { key, packet, meta, .. } = self.held.remove(at);
        if let Some(at) = self.asked.iter().position(|asked| asked.key == key) {
            self.asked[at].packets -= 1;
            if self.asked[at].packets == 0 {
                self.asked.swap_remove(at);
            }
        }
        (packet, meta)
    }
}
