//! What strangers may cost: half-open IKE SAs per source and in all (RFC 7296 §2.6).

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::config::Limits;
use crate::time::Instant;

/// Counts of half-open IKE SAs that peers began.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    total: u32,
    sources: BTreeMap<IpAddr, u32>,
    dropped: u64,
    told: Option<Instant>,
    told_stranger: Option<Instant>,
}

/// What becomes of an IKE_SA_INIT request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It may make state.
    Yes,
    /// It may make state if it brings our cookie.
    WithCookie,
    /// It is dropped.
    No,
}

impl Admission {
    /// Judges a request from `source`.
    pub(crate) fn judge(&self, limits: &Limits, source: IpAddr) -> Admitted {
        let of_source = self.sources.get(&source).copied().unwrap_or(0);
        if self.total >= limits.half_open_max || of_source >= limits.half_open_per_source {
            Admitted::No
        } else if self.total >= limits.cookie_threshold {
            Admitted::WithCookie
        } else {
            Admitted::Yes
        }
    }

    /// A half-open IKE SA is made.
    pub(crate) fn opened(&mut self, source: IpAddr) {
        self.total += 1;
        *self.sources.entry(source).or_default() += 1;
    }

    /// A half-open IKE SA is established or gone.
    pub(crate) fn closed(&mut self, source: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    /// Half-open IKE SAs now.
    pub(crate) const fn half_open(&self) -> u32 {
        self.total
    }

    /// Whether the operator may be told of a stranger now: once in [`TELL_EVERY`].
    pub(crate) fn may_tell(&mut self, now: Instant) -> bool {
        if self.told_stranger.is_some_and(|told| now < told + TELL_EVERY) {
            return false;
        }
        self.told_stranger = Some(now);
        true
    }

    /// Counts a dropped request; the number dropped, once in [`TELL_EVERY`].
    pub(crate) fn dropped(&mut self, now: Instant) -> Option<u64> {
        self.dropped += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(core::mem::take(&mut self.dropped))
    }
}

/// Once a second is enough to see a flood and too little to fill a disk.
const TELL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_per_source_and_in_all_and_state_goes_with_its_cause() {
        let limits =
            Limits { cookie_threshold: 2, half_open_max: 4, half_open_per_source: 3, ..Limits::default() };
        let source = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut admission = Admission::default();
        assert_eq!(admission.judge(&limits, source(1)), Admitted::Yes);
        admission.opened(source(1));
        admission.opened(source(1));
        assert_eq!(admission.judge(&limits, source(1)), Admitted::WithCookie);
        admission.opened(source(1));
        assert_eq!(admission.judge(&limits, source(1)), Admitted::No);
        assert_eq!(admission.judge(&limits, source(2)), Admitted::WithCookie);
        admission.opened(source(2));
        assert_eq!(admission.judge(&limits, source(3)), Admitted::No);
        for n in [1, 1, 1, 2] {
            admission.closed(source(n));
        }
        assert_eq!((admission.half_open(), admission.sources.len()), (0, 0));
        assert_eq!(admission.judge(&limits, source(1)), Admitted::Yes);
    }

    #[test]
    fn a_flood_is_told_once_a_second() {
        let mut admission = Admission::default();
        assert_eq!(admission.dropped(Instant::from_nanos(0)), Some(1));
        assert_eq!(admission.dropped(Instant::from_nanos(1)), None);
        assert_eq!(admission.dropped(Instant::from_nanos(2_000_000_000)), Some(2));
    }
}
