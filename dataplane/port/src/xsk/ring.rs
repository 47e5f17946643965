//! The four rings that an AF_XDP socket shares with the kernel.
//!
//! The index rules are those of `pollux_shm::cursor`. A descriptor is one word (fill, completion: an
//! address) or two (receive, transmit: address; length and options), read and written as relaxed atomics;
//! the Acquire and Release of the indices order them.
#![allow(unsafe_code, reason = "reaches the kernel's rings without a bounds check per descriptor")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pollux_shm::{ConsumerCursor, CursorError, Mapping, ProducerCursor};
use rustix::net::xdp::XdpRingOffset;

/// The words of one ring, found once and kept with the mapping that holds them.
#[derive(Debug)]
struct Words<const PER_DESCRIPTOR: usize> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    descriptors: NonNull<AtomicU64>,
    slots: u32,
    // Last, and never touched again: it unmaps when dropped.
    _mapping: Mapping,
}

// SAFETY: the pointers lead into the mapping that the value owns, which may be used from any thread; what
// they lead to are atomics.
unsafe impl<const N: usize> Send for Words<N> {}

impl<const N: usize> Words<N> {
    /// Finds the words of a ring of `slots` at `offsets`; `None` if they do not lie inside the mapping.
    fn new(mapping: Mapping, offsets: &XdpRingOffset, slots: u32) -> Option<Self> {
        let at = |offset: u64| usize::try_from(offset).ok();
        let word = |offset: u64| mapping.word32(at(offset)?).map(NonNull::from);
        let descriptors = mapping.words(at(offsets.desc)?, (slots as usize).checked_mul(N)?)?;
        let descriptors = NonNull::from(descriptors).cast::<AtomicU64>();
        let (producer, consumer) = (word(offsets.producer)?, word(offsets.consumer)?);
        let flags = match offsets.flags {
            Some(offset) => Some(word(offset)?),
            None => None,
        };
        Some(Self { producer, consumer, flags, descriptors, slots, _mapping: mapping })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: `new` took the pointer from a reference into the mapping, which `self` owns.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: `new` took the pointer from a reference into the mapping, which `self` owns.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        self.flags.is_none_or(|flags| {
            // SAFETY: `new` took the pointer from a reference into the mapping, which `self` owns.
            let flags = unsafe { flags.as_ref() };
            flags.load(Ordering::Relaxed) & NEED_WAKEUP != 0
        })
    }

    /// The words of descriptor `slot`, which the cursors keep below the number of slots.
    #[inline]
    fn descriptor(&self, slot: u32) -> &[AtomicU64; N] {
        assert!(slot < self.slots, "a cursor masks what it returns");
        // SAFETY: `new` has seen `slots` times `N` words there, and `slot` is below `slots`.
        let at = unsafe { self.descriptors.add(slot as usize * N) };
        // SAFETY: as above, `N` words at that place lie inside the mapping, which `self` owns.
        unsafe { at.cast::<[AtomicU64; N]>().as_ref() }
    }
}

/// A ring that we write: fill or transmit.
#[derive(Debug)]
pub(crate) struct ProducerRing<const N: usize> {
    cursor: ProducerCursor,
    words: Words<N>,
}

impl<const N: usize> ProducerRing<N> {
    /// A fresh ring; `None` if it does not lie inside the mapping or its size is no power of two.
    pub(crate) fn new(mapping: Mapping, offsets: &XdpRingOffset, slots: u32) -> Option<Self> {
        let words = Words::new(mapping, offsets, slots)?;
        let cursor = ProducerCursor::new(slots, words.producer().load(Ordering::Relaxed))?;
        Some(Self { cursor, words })
    }

    /// How many descriptors can be written now, at most `want`.
    #[inline]
    pub(crate) fn reserve(&mut self, want: u32) -> Result<u32, CursorError> {
        self.cursor.reserve(self.words.consumer(), want)
    }

    /// Writes the `ahead`-th reserved descriptor.
    #[inline]
    pub(crate) fn write(&mut self, ahead: u32, descriptor: [u64; N]) {
        for (word, value) in self.words.descriptor(self.cursor.slot(ahead)).iter().zip(descriptor) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Gives `count` written descriptors to the kernel.
    #[inline]
    pub(crate) fn commit(&mut self, count: u32) {
        self.cursor.commit(self.words.producer(), count);
    }

    /// Descriptors that the kernel has not yet taken.
    #[inline]
    pub(crate) fn outstanding(&self) -> Result<u32, CursorError> {
        self.cursor.outstanding(self.words.consumer())
    }

    /// Whether the kernel wants a system call before it looks; always, where it cannot say.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.words.needs_wakeup()
    }
}

/// A ring that we read: receive or completion.
#[derive(Debug)]
pub(crate) struct ConsumerRing<const N: usize> {
    cursor: ConsumerCursor,
    words: Words<N>,
}

impl<const N: usize> ConsumerRing<N> {
    /// A fresh ring; `None` if it does not lie inside the mapping or its size is no power of two.
    pub(crate) fn new(mapping: Mapping, offsets: &XdpRingOffset, slots: u32) -> Option<Self> {
        let words = Words::new(mapping, offsets, slots)?;
        let cursor = ConsumerCursor::new(slots, words.consumer().load(Ordering::Relaxed))?;
        Some(Self { cursor, words })
    }

    /// How many descriptors can be read now, at most `want`.
    #[inline]
    pub(crate) fn available(&mut self, want: u32) -> Result<u32, CursorError> {
        self.cursor.available(self.words.producer(), want)
    }

    /// Copies the `ahead`-th available descriptor out.
    #[inline]
    pub(crate) fn read(&self, ahead: u32) -> [u64; N] {
        let words = self.words.descriptor(self.cursor.slot(ahead));
        core::array::from_fn(|k| words[k].load(Ordering::Relaxed))
    }

    /// Gives `count` read descriptors back.
    #[inline]
    pub(crate) fn release(&mut self, count: u32) {
        self.cursor.release(self.words.consumer(), count);
    }
}

/// `XDP_RING_NEED_WAKEUP`.
const NEED_WAKEUP: u32 = 1;

#[cfg(test)]
mod tests {
    use pollux_shm::{Memfd, Pages};
    use proptest::prelude::*;

    use super::*;

    const OFFSETS: XdpRingOffset = XdpRingOffset { producer: 0, consumer: 128, desc: 256, flags: Some(192) };

    /// Two mappings of one page: ours and the "kernel's".
    fn page() -> (Mapping, Mapping) {
        let memfd = Memfd::create("pollux-ring", 4096, Pages::Normal).expect("memfd");
        let map = || Mapping::new(&memfd, 4096, 0, false).expect("mapping");
        (map(), map())
    }

    fn start_at(map: &Mapping, index: u32) {
        map.word32(0).expect("inside").store(index, Ordering::Relaxed);
        map.word32(128).expect("inside").store(index, Ordering::Relaxed);
    }

    #[test]
    fn descriptors_cross_in_order_through_the_wrap_of_the_index() {
        let (ours, kernel) = page();
        start_at(&kernel, u32::MAX - 3);
        let mut tx = ProducerRing::<2>::new(ours, &OFFSETS, 8).expect("fits");
        let mut rx = ConsumerRing::<2>::new(kernel, &OFFSETS, 8).expect("fits");
        let (mut sent, mut got) = (0_u64, 0);
        for _ in 0..20 {
            let n = tx.reserve(5).expect("honest");
            for k in 0..n {
                tx.write(k, [sent, sent ^ 0xff]);
                sent += 1;
            }
            tx.commit(n);
            let n = rx.available(3).expect("honest");
            for k in 0..n {
                assert_eq!(rx.read(k), [got, got ^ 0xff]);
                got += 1;
            }
            rx.release(n);
        }
        assert_eq!(got, 60);
        assert_eq!(tx.outstanding(), Ok(u32::try_from(sent - got).expect("few")));
    }

    #[test]
    fn ring_that_ends_behind_its_mapping_is_refused() {
        // 240 descriptors of 16 octets end with the page; one more would lie behind it.
        let at = |offsets: XdpRingOffset, slots| ProducerRing::<2>::new(page().0, &offsets, slots).is_some();
        assert!(at(OFFSETS, 128));
        assert!(!at(OFFSETS, 256));
        assert!(!at(XdpRingOffset { desc: 4096 - 16, ..OFFSETS }, 2));
        assert!(at(XdpRingOffset { desc: 4096 - 16, ..OFFSETS }, 1));
        assert!(!at(XdpRingOffset { desc: 260, ..OFFSETS }, 1), "off a multiple of 8");
        assert!(!at(XdpRingOffset { producer: 4096, ..OFFSETS }, 1));
        assert!(!at(XdpRingOffset { consumer: u64::MAX, ..OFFSETS }, 1));
        assert!(!at(XdpRingOffset { flags: Some(4094), ..OFFSETS }, 1));
        assert!(!at(OFFSETS, 3), "no power of two");
    }

    #[test]
    fn last_descriptor_lies_before_the_guard_page() {
        // The file ends after one page: in the second, any access would be SIGBUS.
        let memfd = Memfd::create("pollux-ring", 4096, Pages::Normal).expect("memfd");
        let map = || Mapping::new(&memfd, 8192, 0, false).expect("mapping");
        let (ours, kernel) = (map(), map());
        let offsets = XdpRingOffset { desc: 4096 - 4 * 16, ..OFFSETS };
        let mut tx = ProducerRing::<2>::new(ours, &offsets, 4).expect("fits");
        assert_eq!(tx.reserve(4), Ok(4));
        (0..4).for_each(|k| tx.write(k, [u64::from(k), u64::MAX]));
        tx.commit(4);
        let words = kernel.words(4096 - 64, 8).expect("inside");
        assert_eq!(words[6].load(Ordering::Relaxed), 3);
        assert_eq!(words[7].load(Ordering::Relaxed), u64::MAX);
    }

    #[test]
    fn wakeup_is_wanted_where_the_flag_is_up_or_missing() {
        let (ours, kernel) = page();
        let ring = ProducerRing::<1>::new(ours, &OFFSETS, 4).expect("fits");
        assert!(!ring.needs_wakeup());
        kernel.word32(192).expect("inside").store(1, Ordering::Relaxed);
        assert!(ring.needs_wakeup());
        let old = XdpRingOffset { flags: None, ..OFFSETS };
        assert!(ProducerRing::<1>::new(page().0, &old, 4).expect("fits").needs_wakeup());
    }

    proptest! {
        #[test]
        fn hostile_indices_never_lead_out_of_the_ring(lies in prop::collection::vec((any::<u32>(), any::<u32>()), 1..60)) {
            let (ours, theirs) = page();
            let (second, _) = page();
            let mut rx = ConsumerRing::<2>::new(ours, &OFFSETS, 8).expect("fits");
            let mut fill = ProducerRing::<1>::new(second, &OFFSETS, 8).expect("fits");
            for (producer, consumer) in lies {
                theirs.word32(0).expect("inside").store(producer, Ordering::Relaxed);
                theirs.word32(128).expect("inside").store(consumer, Ordering::Relaxed);
                if let Ok(n) = rx.available(64) {
                    prop_assert!(n <= 8);
                    (0..n).for_each(|k| { let _ = rx.read(k); });
                    rx.release(n);
                }
                fill.words.consumer().store(consumer, Ordering::Relaxed);
                if let Ok(n) = fill.reserve(64) {
                    prop_assert!(n <= 8);
                    (0..n).for_each(|k| fill.write(k, [u64::from(k)]));
                    fill.commit(n);
                }
            }
        }
    }
}
