//! Two ports that are each other's wire: what one sends the other receives, without a copy.
//!
//! For tests, benchmarks and simulation. Packets cross by value, so that the two ends may belong to
//! workers with pools of their own, on threads of their own; a frame that ends in another pool goes home
//! as a handed-over one does.

use std::os::fd::BorrowedFd;

use pollux_packet::{Burst, Meta, Packet};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::port::{Port, PortInfo, PortState, PortStats};
use crate::xsk::frames::FramePool;
use crate::xsk::socket::take_front;

/// One end of a pair.
#[derive(Debug)]
pub struct MemoryPort {
    rx: Consumer<Packet>,
    tx: Producer<Packet>,
    stats: PortStats,
    name: String,
    closed: bool,
}

impl MemoryPort {
    /// Two ports, each with room for `capacity` packets on the way to the other.
    pub fn pair(name: &str, capacity: usize) -> (Self, Self) {
        let (a_tx, b_rx) = RingBuffer::new(capacity);
        let (b_tx, a_rx) = RingBuffer::new(capacity);
        let end = |rx, tx, side| Self {
            rx,
            tx,
            stats: PortStats::default(),
            name: format!("{name}-{side}"),
            closed: false,
        };
        (end(a_rx, a_tx, "a"), end(b_rx, b_tx, "b"))
    }
}

impl Port for MemoryPort {
    fn rx_burst(&mut self, pool: &mut FramePool, meta: &Meta, burst: &mut Burst) -> usize {
        let count = burst.room().min(self.rx.slots());
        let Ok(packets) = self.rx.read_chunk(count) else { return 0 };
        pool.note_fetched(count);
        for packet in packets {
            self.stats.rx_bytes += packet.len() as u64;
            if let Err(packet) = burst.push(packet, *meta) {
                pool.put(packet);
            }
        }
        self.stats.rx_packets += count as u64;
        count
    }

    fn tx_burst(&mut self, pool: &mut FramePool, burst: &mut Burst) -> usize {
        if self.state() != PortState::Up {
            return 0;
        }
        let count = burst.len().min(self.tx.slots());
        self.stats.tx_full += (burst.len() - count) as u64;
        let (tx, stats) = (&mut self.tx, &mut self.stats);
        let mut queued = 0;
        take_front(burst, count, |packet| {
            stats.tx_bytes += packet.len() as u64;
            match tx.push(packet) {
                Ok(()) => queued += 1,
                Err(rtrb::PushError::Full(packet)) => pool.put(packet),
            }
        });
        pool.note_queued(queued);
        self.stats.tx_packets += queued as u64;
        count
    }

    fn reclaim(&mut self, _pool: &mut FramePool) -> usize {
        0
    }

    fn kick(&mut self) {}

    fn state(&self) -> PortState {
        if self.closed {
            PortState::Dead
        } else if self.tx.is_abandoned() {
            PortState::Down
        } else {
            PortState::Up
        }
    }

    fn info(&self) -> PortInfo {
        PortInfo::plain(self.name.clone(), "memory")
    }

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes back what was on the way to this end; what this end has sent belongs to the other.
    fn close(&mut self, pool: &mut FramePool) {
        self.closed = true;
        while let Ok(packet) = self.rx.pop() {
            pool.note_fetched(1);
            pool.put(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Umem, UmemConfig};

    fn pools() -> (FramePool, FramePool) {
        let umem = Umem::new(UmemConfig { frames: 256, frame_len: 2048, huge_pages: false }).expect("umem");
        (umem.pool(128).expect("room"), umem.pool(128).expect("room"))
    }

    fn burst(pool: &mut FramePool, count: u8) -> Burst {
        let mut burst = Burst::new();
        for k in 0..count {
            let mut packet = pool.alloc(64).expect("free");
            assert!(packet.extend(&[k; 60]));
            burst.push(packet, Meta::default()).expect("room");
        }
        burst
    }

    #[test]
    fn packets_cross_in_order_and_frames_go_home() {
        let (mut one, mut two) = pools();
        let (mut a, mut b) = MemoryPort::pair("wire", 64);
        let mut sent = burst(&mut one, 40);
        assert_eq!(a.tx_burst(&mut one, &mut sent), 40);
        assert_eq!((one.ledger().in_rings, one.ledger().in_hand), (40, 0));
        let mut got = Burst::new();
        let meta = Meta { rx_ns: 7, ..Meta::default() };
        assert_eq!(b.rx_burst(&mut two, &meta, &mut got), 40);
        for (k, (packet, meta)) in (0..).zip(got.iter()) {
            assert_eq!((packet.data(), meta.rx_ns), (&[k; 60][..], 7));
        }
        assert!(one.ledger().plus(&two.ledger()).balances(40));
        got.drain().for_each(|(packet, _)| two.put(packet));
        while let Some(packet) = two.take_foreign() {
            one.put(packet);
        }
        assert_eq!((one.ledger().free, two.ledger().free), (128, 128));
    }

    #[test]
    fn full_wire_leaves_the_rest_in_the_burst_in_order() {
        let (mut one, mut two) = pools();
        let (mut a, mut b) = MemoryPort::pair("wire", 4);
        let mut sent = burst(&mut one, 6);
        assert_eq!(a.tx_burst(&mut one, &mut sent), 4);
        assert_eq!(sent.packets().iter().map(|packet| packet.data()[0]).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(a.stats().tx_full, 2);
        sent.drain().for_each(|(packet, _)| one.put(packet));
        b.close(&mut two);
        assert_eq!(b.state(), PortState::Dead);
        drop(b);
        assert_eq!(a.state(), PortState::Down);
        assert!(one.ledger().plus(&two.ledger()).balances(0));
    }
}
