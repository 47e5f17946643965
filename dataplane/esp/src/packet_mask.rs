//! Which packets of a burst are still on their way through the stages.

use pollux_packet::BURST_MAX;

/// One bit for each packet of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PacketMask(u64);

const _: () = assert!(BURST_MAX <= 64);

impl PacketMask {
    /// Whether there are none.
    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    #[inline]
    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Adds packet `at`.
    #[inline]
    pub(crate) const fn add(&mut self, at: usize) {
        self.0 |= 1 << (at % 64);
    }

    /// Takes packet `at` out.
    #[inline]
    pub(crate) const fn remove(&mut self, at: usize) {
        self.0 &= !(1 << (at % 64));
    }

    /// Whether packet `at` is among them.
    #[inline]
    pub(crate) const fn contains(self, at: usize) -> bool {
        self.0 & (1 << (at % 64)) != 0
    }

    /// The packets, in order. Taking packets out of the set meanwhile does not disturb the walk.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            Some(at)
        })
    }
}
