//! A port whose wire is bad: what it receives is lost, doubled, reordered or damaged, by a seed.

use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;
use pollux_packet::{Burst, Meta, Packet};

use crate::port::{Port, PortInfo, PortState, PortStats};
use crate::xsk::frames::FramePool;

/// How often, in packets of a million. Each packet meets one fault at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Lost.
    pub loss: u32,
    /// Received twice.
    pub duplicate: u32,
    /// Received after up to four that came later.
    pub reorder: u32,
    /// One bit flipped.
    pub corrupt: u32,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Packets lost.
    pub lost: u64,
    /// Packets received twice.
    pub duplicated: u64,
    /// Packets received later.
    pub reordered: u64,
    /// Packets damaged.
    pub corrupted: u64,
}

/// Does it to what `P` receives; what is sent passes untouched (wrap the other end for that direction).
#[derive(Debug)]
pub struct Fault<P> {
    port: P,
    rates: FaultRates,
    counts: FaultCounts,
    random: u64,
    held: ArrayVec<Held, HELD_MAX>,
    /// Received, but there was no room.
    waiting: Burst,
}

/// A packet that waits until `after` others have passed.
#[derive(Debug)]
struct Held {
    packet: Packet,
    meta: Meta,
    after: u8,
}

impl<P: Port> Fault<P> {
    /// The same seed and the same packets give the same faults.
    pub fn new(port: P, rates: FaultRates, seed: u64) -> Self {
        let (counts, held, waiting) = (FaultCounts::default(), ArrayVec::new(), Burst::new());
        Self { port, rates, counts, random: seed, held, waiting }
    }

    /// What was done so far.
    pub fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// The next number below `bound` (splitmix64 and a multiplication in place of a division).
    fn below(&mut self, bound: u32) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let upper = (z ^ (z >> 31)) >> 32;
        u32::try_from((upper * u64::from(bound)) >> 32).unwrap_or(0)
    }

    fn corrupt(&mut self, packet: &mut Packet) {
        let bits = u32::try_from(packet.len() * 8).unwrap_or(0);
        let bit = self.below(bits) as usize;
        if let Some(octet) = packet.data_mut().get_mut(bit / 8) {
            *octet ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }
    }

    fn meet(&mut self, pool: &mut FramePool, mut packet: Packet, meta: Meta, burst: &mut Burst) {
        let FaultRates { loss, duplicate, reorder, corrupt } = self.rates;
        let dice = self.below(MILLION);
        if dice < loss {
            self.counts.lost += 1;
            pool.put(packet);
            return;
        }
        let dice = dice - loss;
        if dice < duplicate {
            if let Some(copy) = twin(pool, &packet) {
                self.counts.duplicated += 1;
                push(pool, copy, meta, burst);
            }
        } else if dice - duplicate < reorder {
            if !self.held.is_full() {
                self.counts.reordered += 1;
                let after = u8::try_from(1 + self.below(4)).unwrap_or(1);
                self.held.push(Held { packet, meta, after });
                return;
            }
        } else if dice - duplicate - reorder < corrupt {
            self.corrupt(&mut packet);
        }
        push(pool, packet, meta, burst);
        self.release(pool, 1, burst);
    }

    /// Lets those go that have waited for long enough, after `passed` more packets.
    fn release(&mut self, pool: &mut FramePool, passed: u8, burst: &mut Burst) {
        let mut k = 0;
        while k < self.held.len() {
            self.held[k].after = self.held[k].after.saturating_sub(passed);
            if self.held[k].after == 0 {
                let Held { packet, meta, .. } = self.held.remove(k);
                push(pool, packet, meta, burst);
            } else {
                k += 1;
            }
        }
    }
}

impl<P: Port> Port for Fault<P> {
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize {
        let before = burst.len();
        // Doubled and held packets need room too.
        if burst.room() < ROOM_MIN {
            return 0;
        }
        let mut arrived = core::mem::take(&mut self.waiting);
        if arrived.is_empty() && self.port.rx_burst(pool, meta, &mut arrived) == 0 {
            // The wire is quiet: nothing comes that could overtake them.
            self.release(pool, u8::MAX, burst);
        }
        for (packet, meta) in arrived.drain() {
            if burst.room() >= ROOM_MIN {
                self.meet(pool, packet, meta, burst);
            } else {
                push(pool, packet, meta, &mut self.waiting);
            }
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize {
        self.port.tx_burst(pool, burst)
    }

    fn reclaim(&mut self, pool: &mut FramePool) -> usize {
        self.port.reclaim(pool)
    }

    fn kick(&mut self) {
        self.port.kick();
    }

    fn state(&self) -> PortState {
        self.port.state()
    }

    fn info(&self) -> PortInfo {
        self.port.info()
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.port.fd()
    }

    fn close(&mut self, pool: &mut FramePool) {
        self.held.drain(..).for_each(|held| pool.put(held.packet));
        self.waiting.drain().for_each(|(packet, _)| pool.put(packet));
        self.port.close(pool);
    }
}

fn push(pool: &mut FramePool, packet: Packet, meta: Meta, burst: &mut Burst) {
    if let Err(packet) = burst.push(packet, meta) {
        pool.put(packet);
    }
}

/// A copy in a frame of its own, with the same headroom.
fn twin(pool: &mut FramePool, packet: &Packet) -> Option<Packet> {
    let mut copy = pool.alloc(packet.head())?;
    if copy.extend(packet.data()) {
        return Some(copy);
    }
    pool.put(copy);
    None
}

const MILLION: u32 = 1_000_000;
const HELD_MAX: usize = 8;
/// A packet, its twin, and all held ones.
const ROOM_MIN: usize = 2 + HELD_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryPort, Umem, UmemConfig};

    /// Sends `count` numbered packets through the fault; returns what arrived.
    fn through(rates: FaultRates, seed: u64, count: u32) -> (Vec<Vec<u8>>, FaultCounts) {
        let umem = Umem::new(UmemConfig { frames: 256, frame_len: 2048, huge_pages: false }).expect("umem");
        let mut pool = umem.pool(256).expect("room");
        let (mut a, b) = MemoryPort::pair("wire", 64);
        let mut fault = Fault::new(b, rates, seed);
        let (mut arrived, mut sent, mut got) = (Vec::new(), Burst::new(), Burst::new());
        for k in 0..count {
            let mut packet = pool.alloc(64).expect("free");
            assert!(packet.extend(&k.to_be_bytes()));
            sent.push(packet, Meta::default()).expect("room");
            // In bursts of 32, so that doubled packets always find room.
            if sent.len() == 32 || k + 1 == count {
                a.tx_burst(&mut pool, &mut sent);
                while fault.rx_burst(&mut pool, &Meta::default(), &mut got) != 0 {
                    for (packet, _) in got.drain() {
                        arrived.push(packet.data().to_vec());
                        pool.put(packet);
                    }
                }
            }
        }
        let counts = fault.counts();
        fault.close(&mut pool);
        assert!(pool.ledger().balances(0));
        (arrived, counts)
    }

    #[test]
    fn every_fault_happens_as_often_as_asked_and_is_counted() {
        let rates = FaultRates { loss: 100_000, duplicate: 50_000, reorder: 50_000, corrupt: 20_000 };
        let (arrived, counts) = through(rates, 7, 20_000);
        assert_eq!(arrived.len() as u64, 20_000 - counts.lost + counts.duplicated);
        for (count, expected) in [
            (counts.lost, 2000),
            (counts.duplicated, 1000),
            (counts.reordered, 1000),
            (counts.corrupted, 400),
        ] {
            assert!(count.abs_diff(expected) < expected / 4, "{counts:?}");
        }
        let numbers: Vec<u32> = arrived
            .iter()
            .map(|octets| u32::from_be_bytes(octets[..].try_into().expect("four octets")))
            .collect();
        assert!(!numbers.is_sorted(), "some came late");
    }

    #[test]
    fn a_seed_is_a_history_and_no_rate_is_no_fault() {
        let rates = FaultRates { loss: 200_000, duplicate: 1000, reorder: 90_000, corrupt: 5000 };
        assert_eq!(through(rates, 3, 2000), through(rates, 3, 2000));
        assert_ne!(through(rates, 3, 2000).0, through(rates, 4, 2000).0);
        let (arrived, counts) = through(FaultRates::default(), 3, 500);
        assert_eq!(counts, FaultCounts::default());
        assert!(arrived.iter().zip(0_u32..).all(|(octets, k)| octets[..] == k.to_be_bytes()));
        assert_eq!(arrived.len(), 500);
    }
}
