//! A worker's frames: the free list, and the ledger that shows where the others are.

use pollux_packet::Packet;

use crate::xsk::umem::{Custody, FrameLocation};

/// The frames of one worker. It is lent to the worker's ports at each call; nobody else touches it.
#[derive(Debug)]
pub struct FramePool {
    // hot, written
    free: Vec<u32>,
    in_rings: i64,
    in_hand: i64,
    // hot, read
    custody: Custody,
    first: u32,
    home: u32,
    // cold
    foreign: Vec<u32>,
    misplaced: u64,
    sockets: Vec<bool>,
}

/// Where a pool's frames are. Added up over all pools of a UMEM, `total` is the number of its frames.
///
/// A packet that was handed to another worker leaves one pool's `in_hand` and enters no other's until it is
/// given to one: so a single pool's count can be negative, and only the sum tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Frames that are at home in this pool.
    pub home: u32,
    /// On the free list.
    pub free: u32,
    /// In rings of this worker's ports: to receive into, to send, or received and not fetched.
    pub in_rings: i64,
    /// Given out as packets, less those that came back.
    pub in_hand: i64,
    /// At home elsewhere, waiting to be sent there.
    pub foreign: u32,
    /// Packets that came back but belong to no frame, or to one that was here already. Always 0.
    pub misplaced: u64,
}

impl Ledger {
    /// Free + rings + in hand + waiting to go home.
    pub fn total(&self) -> i64 {
        i64::from(self.free) + self.in_rings + self.in_hand + i64::from(self.foreign)
    }

    /// The ledger of two pools together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            home: self.home + other.home,
            free: self.free + other.free,
            in_rings: self.in_rings + other.in_rings,
            in_hand: self.in_hand + other.in_hand,
            foreign: self.foreign + other.foreign,
            misplaced: self.misplaced + other.misplaced,
        }
    }

    /// Whether every frame is accounted for, `in_hand` of them in packets that the caller knows of.
    pub fn balances(&self, in_hand: usize) -> bool {
        self.total() == i64::from(self.home)
            && usize::try_from(self.in_hand) == Ok(in_hand)
            && self.misplaced == 0
    }
}

impl FramePool {
    pub(crate) fn new(custody: Custody, first: u32, home: u32) -> Self {
        // Last in, first out: a frame that was just sent is still in the cache.
        let free = (first..first + home).rev().collect();
        let foreign = Vec::with_capacity((custody.frames() - home) as usize);
        Self {
            free,
            in_rings: 0,
            in_hand: 0,
            custody,
            first,
            home,
            foreign,
            misplaced: 0,
            sockets: Vec::new(),
        }
    }

    /// An empty packet with `headroom` octets before it; `None` when every frame is elsewhere.
    #[inline]
    pub fn alloc(&mut self, headroom: u16) -> Option<Packet> {
        let index = self.free.pop()?;
        let packet = self.custody.give_out(index, FrameLocation::FREE, headroom, 0);
        self.in_hand += i64::from(packet.is_some());
        packet
    }

    /// Takes a packet's frame back: to the free list, or aside if it is at home in another pool.
    #[inline]
    pub fn put(&mut self, packet: Packet) {
        let home = self.is_home(packet.frame().index());
        match self.custody.take_in(packet, if home { FrameLocation::FREE } else { FrameLocation::FOREIGN }) {
            Ok(taken) => {
                self.in_hand -= 1;
                self.list(home).push(taken.index);
            }
            Err(_) => self.misplaced += 1,
        }
    }

    /// A frame that waits to go home to another pool; give it to that pool's [`Self::put`].
    pub fn take_foreign(&mut self) -> Option<Packet> {
        let index = self.foreign.pop()?;
        let packet = self.custody.give_out(index, FrameLocation::FOREIGN, 0, 0);
        self.in_hand += i64::from(packet.is_some());
        packet
    }

    /// Where the frames are.
    pub fn ledger(&self) -> Ledger {
        let count = |list: &Vec<u32>| u32::try_from(list.len()).unwrap_or(u32::MAX);
        Ledger {
            home: self.home,
            free: count(&self.free),
            in_rings: self.in_rings,
            in_hand: self.in_hand,
            foreign: count(&self.foreign),
            misplaced: self.misplaced,
        }
    }

    /// Octets in a frame.
    pub fn frame_len(&self) -> u16 {
        self.custody.frame_len()
    }

    /// A place for the rings of one more socket; `None` when the pool has too many.
    pub(crate) fn open_place(&mut self) -> Option<FrameLocation> {
        let index = self.sockets.iter().position(|used| !used).unwrap_or(self.sockets.len());
        let place = FrameLocation::socket(index)?;
        if index == self.sockets.len() {
            self.sockets.push(true);
        } else {
            self.sockets[index] = true;
        }
        Some(place)
    }

    /// Takes back every frame at a place whose socket is closed, and the place itself; returns how many.
    pub(crate) fn close_place(&mut self, place: FrameLocation) -> usize {
        let indices: Vec<u32> = self.custody.at(place).collect();
        for &index in &indices {
            self.leave_ring(index, place);
        }
        if let Some(used) = (0..self.sockets.len()).find(|&index| FrameLocation::socket(index) == Some(place))
        {
            self.sockets[used] = false;
        }
        indices.len()
    }

    /// Moves a free frame to the rings at `place`; returns its UMEM address.
    #[inline]
    pub(crate) fn lend_free(&mut self, place: FrameLocation) -> Option<u64> {
        let index = self.free.pop()?;
        self.custody.shift(index, FrameLocation::FREE, place);
        self.in_rings += 1;
        Some(self.custody.address(index))
    }

    /// Moves a packet to the rings at `place`; returns its UMEM address and length.
    #[inline]
    pub(crate) fn lend(&mut self, packet: Packet, place: FrameLocation) -> Option<(u64, u16)> {
        let Ok(taken) = self.custody.take_in(packet, place) else {
            self.misplaced += 1;
            return None;
        };
        self.in_hand -= 1;
        self.in_rings += 1;
        Some((taken.address, taken.len))
    }

    /// The packet that the kernel received at a UMEM address; `None` if no frame of `place` is there.
    #[inline]
    pub(crate) fn receive(&mut self, address: u64, len: u32, place: FrameLocation) -> Option<Packet> {
        let (index, offset) = self.custody.locate(address)?;
        let len = u16::try_from(len).ok()?;
        let packet = self.custody.give_out(index, place, offset, len)?;
        self.in_rings -= 1;
        self.in_hand += 1;
        Some(packet)
    }

    /// Takes back a frame that the kernel has sent; false if `place` has no such frame.
    #[inline]
    pub(crate) fn complete(&mut self, address: u64, place: FrameLocation) -> bool {
        self.custody.locate(address).is_some_and(|(index, _)| self.leave_ring(index, place))
    }

    /// A packet goes into a ring that holds packets by value.
    #[inline]
    pub(crate) fn note_queued(&mut self, packets: usize) {
        let packets = i64::try_from(packets).unwrap_or(i64::MAX);
        self.in_hand -= packets;
        self.in_rings += packets;
    }

    /// A packet comes out of such a ring.
    #[inline]
    pub(crate) fn note_fetched(&mut self, packets: usize) {
        let packets = i64::try_from(packets).unwrap_or(i64::MAX);
        self.in_hand += packets;
        self.in_rings -= packets;
    }

    #[inline]
    fn leave_ring(&mut self, index: u32, place: FrameLocation) -> bool {
        let home = self.is_home(index);
        let left =
            self.custody.shift(index, place, if home { FrameLocation::FREE } else { FrameLocation::FOREIGN });
        if left {
            self.in_rings -= 1;
            self.list(home).push(index);
        }
        left
    }

    #[inline]
    fn is_home(&self, index: u32) -> bool {
        index.wrapping_sub(self.first) < self.home
    }

    /// Neither list ever grows beyond its first capacity: each has room for all frames that can be on it.
    #[inline]
    fn list(&mut self, home: bool) -> &mut Vec<u32> {
        if home { &mut self.free } else { &mut self.foreign }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Umem, UmemConfig};

    fn umem(frames: u32) -> Umem {
        Umem::new(UmemConfig { frames, frame_len: 2048, huge_pages: false }).expect("umem")
    }

    #[test]
    fn frame_of_another_pool_goes_home() {
        let umem = umem(8);
        let (mut one, mut two) = (umem.pool(4).expect("room"), umem.pool(4).expect("room"));
        let packet = one.alloc(64).expect("free");
        two.put(packet);
        assert_eq!((one.ledger().in_hand, two.ledger().in_hand, two.ledger().foreign), (1, -1, 1));
        let packet = two.take_foreign().expect("it waits");
        assert_eq!(umem.home_of(packet.frame()), Some(0));
        one.put(packet);
        assert!(one.ledger().plus(&two.ledger()).balances(0));
        assert_eq!((one.ledger().free, two.ledger().free), (4, 4));
    }

    #[test]
    fn closed_place_gives_back_all_its_frames() {
        let umem = umem(8);
        let mut pool = umem.pool(8).expect("room");
        let (a, b) = (pool.open_place().expect("few"), pool.open_place().expect("few"));
        (0..3).for_each(|_| assert!(pool.lend_free(a).is_some()));
        let address = pool.lend_free(b).expect("free");
        let packet = pool.alloc(10).expect("free");
        assert!(pool.lend(packet, a).is_some());
        assert!(!pool.complete(address, a), "it is at b");
        assert_eq!(pool.close_place(a), 4);
        assert_eq!(pool.ledger().in_rings, 1);
        assert_eq!(pool.open_place(), Some(a), "the place is used again");
        assert!(pool.complete(address, b));
        assert!(!pool.complete(address, b), "once only");
        assert!(pool.ledger().balances(0));
    }

    #[test]
    fn packet_without_a_frame_is_counted_and_nothing_else() {
        let mut pool = umem(2).pool(2).expect("room");
        let bytes: &'static mut [u8] = Box::leak(vec![0; 2048].into_boxed_slice());
        pool.put(Packet::empty(bytes, pollux_packet::FrameId::new(0), 0));
        assert_eq!((pool.ledger().misplaced, pool.ledger().free), (1, 2));
        assert!(!pool.ledger().balances(0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn ledger_balances_after_every_step(steps in prop::collection::vec((0..8_u8, 0..2_usize, any::<u32>()), 1..300)) {
            let umem = umem(24);
            let mut pools = [umem.pool(16).expect("room"), umem.pool(8).expect("room")];
            let places = [pools[0].open_place().expect("few"), pools[1].open_place().expect("few")];
            let mut hand = Vec::new();
            let mut lent: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
            for (step, k, wild) in steps {
                match step {
                    0 => hand.extend(pools[k].alloc(64)),
                    1 => if let Some(packet) = hand.pop() { pools[k].put(packet) },
                    2 => lent[k].extend(pools[k].lend_free(places[k])),
                    3 => if !hand.is_empty() {
                        let packet = hand.swap_remove(wild as usize % hand.len());
                        lent[k].extend(pools[k].lend(packet, places[k]).map(|(address, _)| address));
                    },
                    4 => if let Some(address) = lent[k].pop() { prop_assert!(pools[k].complete(address, places[k])) },
                    5 => if let Some(address) = lent[k].pop() {
                        hand.push(pools[k].receive(address, 60, places[k]).expect("it was lent"));
                    },
                    6 => hand.extend(pools[k].take_foreign()),
                    // What a hostile or broken ring might say.
                    _ => {
                        let known = |address: u64| lent[k].iter().any(|lent| lent >> 11 == address >> 11);
                        if !known(u64::from(wild)) {
                            prop_assert!(!pools[k].complete(u64::from(wild), places[k]));
                            prop_assert!(pools[k].receive(u64::from(wild), 60, places[k]).is_none());
                        }
                    }
                }
                prop_assert!(pools[0].ledger().plus(&pools[1].ledger()).balances(hand.len()));
            }
            for (pool, place) in pools.iter_mut().zip(places) {
                pool.close_place(place);
            }
            for packet in hand { pools[0].put(packet) }
            while let Some(packet) = pools[0].take_foreign() { pools[1].put(packet) }
            while let Some(packet) = pools[1].take_foreign() { pools[0].put(packet) }
            prop_assert_eq!((pools[0].ledger().free, pools[1].ledger().free), (16, 8));
        }
    }
}
