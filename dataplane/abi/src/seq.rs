//! Sequence numbers: 32 bits on the wire, 64 where Extended Sequence Numbers are in use.

use core::fmt;

/// The low 32 bits of a sequence number, as ESP carries them (RFC 4303 §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct SeqNo(pub u32);

/// A whole 64-bit sequence number (RFC 4303 §2.2.1); without ESN its high half is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Esn(pub u64);

impl Esn {
    /// The half that goes on the wire.
    #[inline]
    pub const fn low(self) -> SeqNo {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
        SeqNo(self.0 as u32)
    }

    /// The half that is only authenticated.
    #[inline]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The 64-bit number that `seq` most likely stands for, given the highest authenticated number and
    /// the size of the window (RFC 4303 appendix A2.1). `None` where the guess would wrap past 2^64.
    #[inline]
    pub const fn infer(highest: Self, window_packets: u32, seq: SeqNo) -> Option<Self> {
        let top_low = highest.low().0;
        let top_high = highest.high();
        let bottom = top_low.wrapping_sub(window_packets.wrapping_sub(1));
        let high = if top_low >= window_packets.wrapping_sub(1) {
            // Case A: the window lies within one subspace.
            if seq.0 >= bottom { Some(top_high) } else { top_high.checked_add(1) }
        } else {
            // Case B: the window reaches back into the previous subspace.
            if seq.0 >= bottom { top_high.checked_sub(1) } else { Some(top_high) }
        };
        match high {
            Some(high) => Some(Self((high as u64) << 32 | seq.0 as u64)),
            None => None,
        }
    }
}

impl fmt::Display for Esn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn guess_stays_in_the_subspace_while_the_window_does() {
        let highest = Esn(0x5_0000_1000);
        assert_eq!(Esn::infer(highest, 64, SeqNo(0x1000)), Some(highest));
        assert_eq!(Esn::infer(highest, 64, SeqNo(0x2000)), Some(Esn(0x5_0000_2000)));
        assert_eq!(Esn::infer(highest, 64, SeqNo(0x10)), Some(Esn(0x6_0000_0010)));
    }

    #[test]
    fn guess_reaches_back_across_the_boundary() {
        let highest = Esn(0x5_0000_0003);
        assert_eq!(Esn::infer(highest, 64, SeqNo(0xffff_fff0)), Some(Esn(0x4_ffff_fff0)));
        assert_eq!(Esn::infer(Esn(3), 64, SeqNo(0xffff_fff0)), None);
    }

    #[test]
    fn guess_does_not_wrap_past_the_last_number() {
        assert_eq!(Esn::infer(Esn(u64::MAX), 64, SeqNo(3)), None);
    }

    proptest! {
        /// What is within half the number space ahead, or in the window behind, is always guessed right.
        #[test]
        fn guess_is_right_near_the_window(highest in 1u64 << 33..u64::MAX >> 1, window in 64u32..=65_536, ahead in 0u64..1 << 31, behind in 0u64..65_536) {
            let up = Esn(highest + ahead);
            prop_assert_eq!(Esn::infer(Esn(highest), window, up.low()), Some(up));
            let down = Esn(highest - behind % u64::from(window));
            prop_assert_eq!(Esn::infer(Esn(highest), window, down.low()), Some(down));
        }
    }
}
