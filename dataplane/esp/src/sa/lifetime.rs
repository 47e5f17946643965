//! Soft and hard limits by octets and packets.

use pollux_abi::command::Lifetimes;
use pollux_abi::event::LimitKind;

/// The limits of one SA; no limit is `u64::MAX`, so that one comparison answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    soft_bytes: u64,
    hard_bytes: u64,
    soft_packets: u64,
    hard_packets: u64,
}

/// A limit that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The SA stops.
    pub(crate) hard: bool,
    /// Which limit.
    pub(crate) kind: LimitKind,
}

impl Limits {
    pub(crate) const NONE: Self =
        Self { soft_bytes: u64::MAX, hard_bytes: u64::MAX, soft_packets: u64::MAX, hard_packets: u64::MAX };

    pub(crate) const fn new(lifetimes: &Lifetimes) -> Self {
        const fn limit(value: u64) -> u64 {
            if value == 0 { u64::MAX } else { value }
        }
        Self {
            soft_bytes: limit(lifetimes.soft_bytes),
            hard_bytes: limit(lifetimes.hard_bytes),
            soft_packets: limit(lifetimes.soft_packets),
            hard_packets: limit(lifetimes.hard_packets),
        }
    }

    /// The severest limit that these counts reach.
    #[inline]
    pub(crate) fn reached(&self, packets: u64, bytes: u64) -> Option<Reached> {
        let at = |hard, kind| Some(Reached { hard, kind });
        if packets >= self.hard_packets {
            at(true, LimitKind::Packets)
        } else if bytes >= self.hard_bytes {
            at(true, LimitKind::Bytes)
        } else if packets >= self.soft_packets {
            at(false, LimitKind::Packets)
        } else if bytes >= self.soft_bytes {
            at(false, LimitKind::Bytes)
        } else {
            None
        }
    }
}

/// What has been told of an SA, in its hot half: one bit each.
pub(crate) mod flag {
    /// The first packet has been reported (inbound).
    pub(crate) const FIRST_TOLD: u8 = 1;
    /// A soft limit has been reported.
    pub(crate) const SOFT_TOLD: u8 = 2;
    /// A hard limit has been reached: no packet passes.
    pub(crate) const STOPPED: u8 = 4;
    /// The hard limit has been reported.
    pub(crate) const HARD_TOLD: u8 = 8;
    /// The sequence numbers are used up (outbound).
    pub(crate) const EXHAUSTED: u8 = 16;
}
