//! Up to 64 packets that go through the stages together.

use arrayvec::ArrayVec;
use pollux_abi::DropReason;

use crate::buf::Packet;
use crate::meta::{Meta, Verdict};

/// Packets in a burst at most: a NIC descriptor batch, and as many as the AEAD engine keeps in flight.
pub const BURST_MAX: usize = 64;

/// Packets and what is known of each, in two arrays. It never allocates; make it once and keep it.
#[derive(Debug, Default)]
pub struct Burst {
    packets: ArrayVec<Packet, BURST_MAX>,
    metas: ArrayVec<Meta, BURST_MAX>,
}

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many packets it holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many more fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.packets.remaining_capacity()
    }

    /// Appends a packet; a full burst gives it back.
    ///
    /// # Errors
    /// The packet, where [`Self::room`] is 0.
    #[inline]
    pub fn push(&mut self, packet: Packet, meta: Meta) -> Result<(), Packet> {
        self.packets.try_push(packet).map_err(arrayvec::CapacityError::element)?;
        self.metas.push(meta);
        Ok(())
    }

    /// The packets and their metadata, in order.
    #[inline]
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&mut Packet, &mut Meta)> {
        self.packets.iter_mut().zip(self.metas.iter_mut())
    }

    /// The packets and their metadata, in order.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Packet, &Meta)> {
        self.packets.iter().zip(self.metas.iter())
    }

    /// Both arrays.
    #[inline]
    pub fn split_mut(&mut self) -> (&mut [Packet], &mut [Meta]) {
        (&mut self.packets, &mut self.metas)
    }

    /// The packets.
    #[inline]
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// The metadata.
    #[inline]
    pub fn metas(&self) -> &[Meta] {
        &self.metas
    }

    /// The metadata.
    #[inline]
    pub fn metas_mut(&mut self) -> &mut [Meta] {
        &mut self.metas
    }

    /// Takes out packet `index`; the last one takes its place. `None` beyond the end.
    pub fn swap_remove(&mut self, index: usize) -> Option<(Packet, Meta)> {
        let packet = self.packets.swap_pop(index)?;
        let meta = self.metas.swap_pop(index)?;
        Some((packet, meta))
    }

    /// Takes out the last packet.
    pub fn pop(&mut self) -> Option<(Packet, Meta)> {
        Some((self.packets.pop()?, self.metas.pop()?))
    }

    /// Takes out all packets, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Packet, Meta)> {
        self.packets.drain(..).zip(self.metas.drain(..))
    }

    /// Takes out the packets whose metadata `wanted` accepts and gives them to `sink`, in order; the others
    /// stay, in order. Bursts of one kind, the usual case, are not moved about.
    pub fn take_where(&mut self, wanted: impl Fn(&Meta) -> bool, mut sink: impl FnMut(Packet, Meta)) {
        let count = self.metas.iter().filter(|meta| wanted(meta)).count();
        if count == 0 {
            return;
        }
        if count == self.len() {
            self.drain().for_each(|(packet, meta)| sink(packet, meta));
            return;
        }
        let packets = core::mem::take(&mut self.packets);
        let metas = core::mem::take(&mut self.metas);
        for (packet, meta) in packets.into_iter().zip(metas) {
            if wanted(&meta) {
                sink(packet, meta);
            } else {
                self.packets.push(packet);
                self.metas.push(meta);
            }
        }
    }

    /// Takes out what is dropped and gives it to `sink` with its reason: the one place to count it and to
    /// reclaim its frame.
    pub fn take_dropped(&mut self, mut sink: impl FnMut(Packet, DropReason)) {
        self.take_where(
            |meta| matches!(meta.verdict, Verdict::Drop(_)),
            |packet, meta| {
                if let Verdict::Drop(reason) = meta.verdict {
                    sink(packet, reason);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::FrameId;

    fn burst(len: u32) -> Burst {
        let mut burst = Burst::new();
        for frame in 0..len {
            let packet = Packet::empty(Box::leak(vec![0; 8].into_boxed_slice()), FrameId::new(frame), 0);
            let meta = Meta { rx_ns: u64::from(frame), ..Meta::default() };
            assert!(burst.push(packet, meta).is_ok());
        }
        burst
    }

    fn frames(burst: &Burst) -> Vec<u32> {
        for (packet, meta) in burst.iter() {
            assert_eq!(u64::from(packet.frame().index()), meta.rx_ns, "packet and metadata stay together");
        }
        burst.packets().iter().map(|packet| packet.frame().index()).collect()
    }

    #[test]
    fn full_burst_gives_the_packet_back() {
        let mut full = burst(64);
        assert_eq!(full.room(), 0);
        let (packet, meta) = full.swap_remove(0).expect("it is full");
        assert_eq!(packet.frame().index(), 0);
        assert!(full.push(packet, meta).is_ok());
        let spare = Packet::empty(Box::leak(vec![0; 8].into_boxed_slice()), FrameId::new(99), 0);
        assert_eq!(full.push(spare, Meta::default()).map_err(|back| back.frame().index()), Err(99));
        assert!(full.swap_remove(64).is_none());
    }

    #[test]
    fn taking_by_verdict_keeps_both_orders() {
        let mut mixed = burst(7);
        for meta in mixed.metas_mut().iter_mut().filter(|meta| meta.rx_ns % 3 == 0) {
            meta.drop_for(DropReason::BadIcv);
        }
        let mut taken = Vec::new();
        mixed.take_dropped(|packet, reason| {
            assert_eq!(reason, DropReason::BadIcv);
            taken.push(packet.frame().index());
        });
        assert_eq!(taken, [0, 3, 6]);
        assert_eq!(frames(&mixed), [1, 2, 4, 5]);
        mixed.take_where(|_| true, |packet, _| taken.push(packet.frame().index()));
        assert!(mixed.is_empty());
        assert_eq!(taken, [0, 3, 6, 1, 2, 4, 5]);
    }
}
