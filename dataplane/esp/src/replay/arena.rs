//! The memory of all replay windows: a buddy allocator over one array, so that windows of 64 to 65,536
//! packets come and go without the process's allocator.

use super::Window;

/// The smallest block: two words, a window of 64.
const ORDER_MIN: u32 = 1;
/// The largest: 2,048 words, a window of 65,536 and the word that is being filled.
const ORDER_MAX: u32 = 11;
const ORDERS: usize = (ORDER_MAX - ORDER_MIN + 1) as usize;

/// One bit for each block of one order: whether it is free.
#[derive(Debug)]
struct FreeBlocks {
    bits: Box<[u64]>,
    count: usize,
}

impl FreeBlocks {
    fn take_any(&mut self) -> Option<usize> {
        if self.count == 0 {
            return None;
        }
        let word = self.bits.iter().position(|word| *word != 0)?;
        let block = word * 64 + self.bits[word].trailing_zeros() as usize;
        self.take(block).then_some(block)
    }

    fn take(&mut self, block: usize) -> bool {
        let Some(word) = self.bits.get_mut(block / 64) else { return false };
        let bit = 1 << (block % 64);
        let was_free = *word & bit != 0;
        *word &= !bit;
        self.count -= usize::from(was_free);
        was_free
    }

    fn give(&mut self, block: usize) {
        if let Some(word) = self.bits.get_mut(block / 64) {
            *word |= 1 << (block % 64);
            self.count += 1;
        }
    }
}

/// The words of all windows, and which are free.
#[derive(Debug)]
pub(crate) struct WindowArena {
    words: Box<[u64]>,
    free: [FreeBlocks; ORDERS],
}

impl WindowArena {
    /// Memory for windows that span `packets` together, rounded up.
    pub(crate) fn new(packets: u64) -> Self {
        let largest = 1usize << ORDER_MAX;
        // A window of a power of two needs twice its bits: one word more than a power of two.
        let words = usize::try_from(packets / 32).unwrap_or(usize::MAX >> 8).max(1).next_multiple_of(largest);
        let free = std::array::from_fn(|at| {
            let blocks = words >> (at + ORDER_MIN as usize);
            FreeBlocks { bits: vec![0; blocks.div_ceil(64)].into(), count: 0 }
        });
        let mut arena = Self { words: vec![0; words].into(), free };
        for block in 0..words / largest {
            arena.free[ORDERS - 1].give(block);
        }
        arena
    }

    /// The order of the block for a window of so many packets: its words and one more, a power of two.
    pub(crate) fn order_for(window_packets: u32) -> u32 {
        (window_packets.div_ceil(64) + 1).next_power_of_two().trailing_zeros().clamp(ORDER_MIN, ORDER_MAX)
    }

    /// Takes a block of `1 << order` words; the place of its first word.
    pub(crate) fn take(&mut self, order: u32) -> Option<u32> {
        let wanted = (order.checked_sub(ORDER_MIN)?) as usize;
        let (mut at, mut block) = (wanted..ORDERS).find_map(|at| Some((at, self.free[at].take_any()?)))?;
        while at > wanted {
            at -= 1;
            block *= 2;
            self.free[at].give(block + 1);
        }
        u32::try_from(block << order).ok()
    }

    /// Gives back a block that [`Self::take`] gave.
    pub(crate) fn give(&mut self, start: u32, order: u32) {
        let mut block = start as usize >> order;
        let mut at = (order - ORDER_MIN) as usize;
        while at + 1 < ORDERS && self.free[at].take(block ^ 1) {
            block /= 2;
            at += 1;
        }
        self.free[at].give(block);
    }

    /// Moves what `old` knows to a window of `size` packets in other words.
    pub(crate) fn resize(&mut self, old: Window, start: u32, count: u32, size: u32) -> Window {
        let (old_start, old_count) = old.place();
        let range = |start: u32, count: u32| start as usize..start as usize + count as usize;
        match self.words.get_disjoint_mut([range(old_start, old_count), range(start, count)]) {
            Ok([known, words]) => old.resize(known, start, words, size),
            // Two blocks taken from the arena never overlap.
            Err(_) => old,
        }
    }

    /// The words of a window.
    #[inline]
    pub(crate) fn words(&mut self, start: u32, count: u32) -> &mut [u64] {
        let start = start as usize;
        &mut self.words[start..start + count as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn windows_get_a_word_more_than_they_span() {
        for (window, words) in [(64, 2), (65, 4), (128, 4), (1_024, 32), (65_536, 2_048)] {
            assert_eq!(1 << WindowArena::order_for(window), words, "{window}");
        }
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_come_back(steps in proptest::collection::vec((ORDER_MIN..=ORDER_MAX, any::<prop::sample::Index>(), any::<bool>()), 0..120)) {
            let mut arena = WindowArena::new(65_536 * 2);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (order, index, give) in steps {
                if give && !taken.is_empty() {
                    let (start, order) = taken.swap_remove(index.index(taken.len()));
                    arena.give(start, order);
                } else if let Some(start) = arena.take(order) {
                    let end = start + (1 << order);
                    prop_assert!(end as usize <= arena.words.len());
                    for (other, other_order) in &taken {
                        prop_assert!(end <= *other || other + (1 << other_order) <= start);
                    }
                    taken.push((start, order));
                }
            }
            for (start, order) in taken {
                arena.give(start, order);
            }
            prop_assert_eq!(arena.free[ORDERS - 1].count, 2, "everything has merged again");
            prop_assert!(arena.take(ORDER_MAX).is_some() && arena.take(ORDER_MAX).is_some());
            prop_assert!(arena.take(ORDER_MIN).is_none());
        }
    }
}
