//! The timers of one IKE SA: a small table, one slot a kind.

use crate::time::Instant;

/// What a timer is for. Child SAs keep their own moments in [`super::children`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// Our request is sent again (RFC 7296 §2.1).
    Retransmit,
    /// The handshake must have ended (RFC 7296 §2.6).
    HalfOpen,
    /// The peer may be dead (RFC 7296 §2.4).
    Dpd,
    /// The NAT in front of us may forget us (RFC 3948 §4).
    NatKeepalive,
    /// The IKE SA is rekeyed (RFC 7296 §2.18).
    IkeRekey,
    /// The IKE SA is given up.
    IkeExpire,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Instant>; Self::COUNT]);

impl Timers {
    const ALL: [Timer; Self::COUNT] = [
        Timer::Retransmit,
        Timer::HalfOpen,
        Timer::Dpd,
        Timer::NatKeepalive,
        Timer::IkeRekey,
        Timer::IkeExpire,
    ];
    const COUNT: usize = 6;

    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    /// Stops a timer.
    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// When `timer` will fire.
    pub(crate) fn at(&self, timer: Timer) -> Option<Instant> {
        self.0[timer as usize]
    }

    /// The next moment at which something fires.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that has fired.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let timer = Self::ALL.into_iter().find(|&timer| self.at(timer).is_some_and(|at| at <= now))?;
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_and_at_its_moment() {
        let mut timers = Timers::default();
        timers.set(Timer::Dpd, Instant::from_nanos(20));
        timers.set(Timer::Retransmit, Instant::from_nanos(10));
        assert_eq!(timers.next(), Some(Instant::from_nanos(10)));
        assert_eq!(timers.pop(Instant::from_nanos(9)), None);
        assert_eq!(timers.pop(Instant::from_nanos(30)), Some(Timer::Retransmit));
        assert_eq!(timers.pop(Instant::from_nanos(30)), Some(Timer::Dpd));
        assert_eq!(timers.pop(Instant::from_nanos(30)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn every_timer_has_a_slot_of_its_own() {
        for (slot, timer) in Timers::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, slot);
        }
    }
}
