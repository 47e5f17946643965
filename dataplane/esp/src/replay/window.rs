//! One window: a ring of words, of which the newest is being filled and the oldest is wiped as it turns.

use pollux_abi::DropReason;

/// Where a window stands. Its words lie in the [`super::WindowArena`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    /// The highest number that was authenticated.
    top: u64,
    /// The first word in the arena.
    start: u32,
    /// Words less one; words are a power of two.
    mask: u32,
    /// Packets behind `top` that are still accepted, `top` included; 0 for all, as there is no replay protection.
    size: u32,
}

impl Window {
    /// A window in which every number up to `top` counts as seen.
    pub(crate) fn new(start: u32, words: &mut [u64], size: u32, top: u64) -> Self {
        let mask = u32::try_from(words.len() - 1).unwrap_or(0);
        words.fill(u64::MAX);
        words[word(top) & mask as usize] = u64::MAX >> (63 - top % 64);
        Self { top, start, mask, size }
    }

    /// The highest number that was authenticated.
    #[inline]
    pub(crate) const fn top(&self) -> u64 {
        self.top
    }

    /// Packets that it spans.
    #[inline]
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// Where its words begin in the arena, and how many there are.
    #[inline]
    pub(crate) const fn place(&self) -> (u32, u32) {
        (self.start, self.mask + 1)
    }

    /// Where it is noted whether `sequence` was seen.
    #[inline]
    pub(crate) fn word_of<'a>(&self, words: &'a [u64], sequence: u64) -> &'a u64 {
        &words[word(sequence) & self.mask as usize]
    }

    /// Whether `sequence` is new.
    ///
    /// # Errors
    /// `TooOld` left of the window, `Replayed` where it was seen.
    //= RFC 4303 §3.4.3
    #[inline]
    pub(crate) fn check(&self, words: &[u64], sequence: u64) -> Result<(), DropReason> {
        if sequence > self.top || self.size == 0 {
            return Ok(());
        }
        if self.top - sequence >= u64::from(self.size) {
            return Err(DropReason::TooOld);
        }
        if words[word(sequence) & self.mask as usize] & (1 << (sequence % 64)) != 0 {
            return Err(DropReason::Replayed);
        }
        Ok(())
    }

    /// Marks `sequence` as seen, after its ICV held. Returns how many numbers have been passed over for
    /// good by that.
    ///
    /// # Errors
    /// As [`Self::check`], which is asked again: another packet of the burst may have had the number.
    #[inline]
    pub(crate) fn commit(&mut self, words: &mut [u64], sequence: u64) -> Result<u64, DropReason> {
        self.check(words, sequence)?;
        let mut lost = 0;
        if sequence > self.top {
            lost = self.turn(words, sequence);
            self.top = sequence;
        }
        // Without a window any older number may come: one whose word has turned has no bit.
        if self.size == 0 && self.top - sequence >= u64::from(u64::BITS) {
            return Ok(lost);
        }
        words[word(sequence) & self.mask as usize] |= 1 << (sequence % 64);
        Ok(lost)
    }

    /// Wipes the words between the newest and that of `sequence`, counting what they had not seen.
    fn turn(&self, words: &mut [u64], sequence: u64) -> u64 {
        let (newest, next) = (self.top / 64, sequence / 64);
        let ahead = next - newest;
        let ring = u64::from(self.mask) + 1;
        let mut lost = ahead.saturating_sub(ring).saturating_mul(64);
        for step in 1..=ahead.min(ring) {
            let slot = &mut words[word((newest + step) * 64) & self.mask as usize];
            lost += u64::from(slot.count_zeros());
            *slot = 0;
        }
        lost
    }

    /// Moves what is known to a window of another size, in `words` that are its own from now on.
    pub(crate) fn resize(&self, old: &[u64], start: u32, words: &mut [u64], size: u32) -> Self {
        let mut window = Self::new(start, words, size, self.top);
        let kept = u64::from(size.min(self.size).max(1));
        for sequence in self.top.saturating_sub(kept - 1)..=self.top {
            if self.check(old, sequence).is_ok() {
                words[word(sequence) & window.mask as usize] &= !(1 << (sequence % 64));
            }
        }
        window.top = self.top;
        window
    }
}

/// The word of a number, before it is cut to the ring.
#[inline]
const fn word(sequence: u64) -> usize {
    (sequence / 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::WindowArena;
    use pollux_abi::{Esn, SeqNo};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Fixture {
        window: Window,
        words: Vec<u64>,
    }

    impl Fixture {
        fn new(size: u32, top: u64) -> Self {
            let mut words = vec![0; 1 << WindowArena::order_for(size)];
            Self { window: Window::new(0, &mut words, size, top), words }
        }

        fn commit(&mut self, sequence: u64) -> Result<u64, DropReason> {
            self.window.commit(&mut self.words, sequence)
        }
    }

    /// The rule in plain words: a set of what was seen.
    struct Model {
        size: u64,
        top: u64,
        start: u64,
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn commit(&mut self, sequence: u64) -> Result<(), DropReason> {
            if sequence + self.size <= self.top {
                return Err(DropReason::TooOld);
            }
            if sequence <= self.start || !self.seen.insert(sequence) {
                return Err(DropReason::Replayed);
            }
            self.top = self.top.max(sequence);
            Ok(())
        }
    }

    #[test]
    fn window_drops_duplicates_and_what_is_left_of_it() {
        let mut fixture = Fixture::new(64, 0);
        assert_eq!(fixture.commit(100), Ok(0), "the word of 1 to 63 is still in the ring");
        assert_eq!(fixture.commit(100), Err(DropReason::Replayed));
        assert_eq!(fixture.commit(37), Ok(0));
        assert_eq!(fixture.commit(36), Err(DropReason::TooOld));
        assert_eq!(fixture.commit(101), Ok(0));
        assert_eq!(fixture.commit(37), Err(DropReason::TooOld));
    }

    #[test]
    fn no_window_takes_every_number_at_any_time() {
        let mut fixture = Fixture::new(0, 7);
        for sequence in [7, 3, 100_000, 100_000, 99_950, 5, 0, u64::from(u32::MAX), 1, 1] {
            assert!(fixture.commit(sequence).is_ok(), "{sequence}");
        }
        assert_eq!(fixture.window.top(), u64::from(u32::MAX));
    }

    #[test]
    fn everything_up_to_the_start_counts_as_seen() {
        for start in [0, 1, 63, 64, 1_000, u64::from(u32::MAX), 1 << 40] {
            let mut fixture = Fixture::new(128, start);
            assert_eq!(fixture.commit(start), Err(DropReason::Replayed));
            if start > 0 {
                assert_eq!(fixture.commit(start - 1), Err(DropReason::Replayed));
            }
            assert_eq!(fixture.commit(start + 1), Ok(0), "start {start}");
            assert_eq!(fixture.commit(start + 1), Err(DropReason::Replayed));
        }
    }

    #[test]
    fn last_number_of_all_ends_the_window() {
        let mut fixture = Fixture::new(64, u64::MAX - 1);
        assert_eq!(fixture.commit(u64::MAX), Ok(0));
        assert_eq!(fixture.commit(u64::MAX), Err(DropReason::Replayed));
        let mut words = vec![0; 1 << WindowArena::order_for(1_024)];
        let resized = fixture.window.resize(&fixture.words, 0, &mut words, 1_024);
        assert_eq!(resized.check(&words, u64::MAX), Err(DropReason::Replayed));
        assert_eq!(resized.check(&words, u64::MAX - 5_000), Err(DropReason::TooOld));
    }

    #[test]
    fn counts_each_number_lost_once() {
        let mut fixture = Fixture::new(64, 0);
        let mut lost = 0;
        for sequence in (1..100_000u64).filter(|sequence| sequence % 10 != 3) {
            lost += fixture.commit(sequence).expect("each is new");
        }
        lost += fixture.commit(10_000_000).expect("a long jump");
        let skipped = 10_000_000 - 100_000;
        // The jump's own word and the one before it are still in the ring.
        assert!((10_000 + skipped - 128..=10_000 + skipped).contains(&lost), "{lost}");
    }

    proptest! {
        #[test]
        fn window_behaves_as_a_set_of_numbers(
            size in prop_oneof![Just(64u32), Just(65), Just(1_000), Just(1_024), Just(65_536)],
            start in prop_oneof![Just(0u64), 1u64..300, Just(u64::from(u32::MAX) - 40)],
            steps in proptest::collection::vec((prop_oneof![-200i64..200, -3_000i64..3_000, 0i64..200_000], any::<bool>()), 0..300),
        ) {
            let mut fixture = Fixture::new(size, start);
            let mut model = Model { size: u64::from(size), top: start, start, seen: BTreeSet::new() };
            for (step, near_top) in steps {
                let from = if near_top { model.top } else { start };
                let sequence = from.saturating_add_signed(step).max(1);
                prop_assert_eq!(fixture.commit(sequence).map(|_| ()), model.commit(sequence), "{}", sequence);
                prop_assert_eq!(fixture.window.top(), model.top);
            }
        }

        #[test]
        fn resized_window_knows_what_both_span(
            from in prop_oneof![Just(64u32), Just(1_024)], to in prop_oneof![Just(64u32), Just(256), Just(4_096)],
            steps in proptest::collection::vec(1u64..2_000, 1..200),
        ) {
            let mut fixture = Fixture::new(from, 0);
            for sequence in steps {
                let _ = fixture.commit(sequence);
            }
            let mut words = vec![0; 1 << WindowArena::order_for(to)];
            let resized = fixture.window.resize(&fixture.words, 0, &mut words, to);
            prop_assert_eq!(resized.top(), fixture.window.top());
            for sequence in 1..2_100u64 {
                let before = fixture.window.check(&fixture.words, sequence);
                let after = resized.check(&words, sequence);
                // Nothing that was refused is accepted, and what both windows span is accepted still.
                prop_assert!(before.is_ok() || after.is_err());
                if before.is_ok() && sequence + u64::from(to) > resized.top() {
                    prop_assert!(after.is_ok(), "{}", sequence);
                }
            }
        }

        /// A sender's 64-bit numbers, cut to 32 bits, reordered within the window and received in full.
        #[test]
        fn esn_is_guessed_right_across_the_boundary(jitter in proptest::collection::vec(0u64..60, 200)) {
            let first = (3u64 << 32) - 100;
            let mut sent: Vec<u64> = (first..first + 200).collect();
            let order = jitter;
            sent.sort_by_key(|sequence| sequence + order[usize::try_from(sequence - first).expect("small")]);
            let mut fixture = Fixture::new(64, first - 1);
            for sequence in sent {
                let guess = Esn::infer(Esn(fixture.window.top()), 64, Esn(sequence).low());
                prop_assert_eq!(guess, Some(Esn(sequence)));
                prop_assert!(fixture.commit(sequence).is_ok());
            }
            // Left of the window, so that it must be the next time round.
            prop_assert_eq!(Esn::infer(Esn(fixture.window.top()), 64, SeqNo(0)), Some(Esn(4 << 32)));
        }
    }
}
