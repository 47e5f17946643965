//! The cold half of an SA: what packets rarely need.

use std::net::IpAddr;

use pollux_abi::{Reqid, SaId, SaIndex, Spi, WorkerId};

/// What is known of an installed SA beside its hot half.
#[derive(Clone, Debug)]
pub(crate) struct SaRecord {
    pub(crate) id: SaId,
    pub(crate) spi: Spi,
    pub(crate) reqid: Reqid,
    pub(crate) owner: WorkerId,
    /// The outbound SA of this reqid installed after this one.
    pub(crate) newer: Option<SaIndex>,
    /// The outbound SA of this reqid installed before this one.
    pub(crate) older: Option<SaIndex>,
    /// Order of the replay window's memory (inbound, owner only).
    pub(crate) window_order: Option<u32>,
    pub(crate) replays: ReplayWatch,
    pub(crate) peer: PeerWatch,
}

impl SaRecord {
    pub(crate) fn new(id: SaId, spi: Spi, reqid: Reqid, owner: WorkerId) -> Self {
        Self {
            id,
            spi,
            reqid,
            owner,
            newer: None,
            older: None,
            window_order: None,
            replays: ReplayWatch::default(),
            peer: PeerWatch::default(),
        }
    }
}

/// Nanoseconds between two events of one kind about one SA, at the least.
const QUIET_NS: u64 = 1_000_000_000;

/// Replayed or too old packets within [`QUIET_NS`] that control should hear of.
const REPLAYS_NOTABLE: u32 = 64;

/// Counts replayed and too old packets, and tells of bursts of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplayWatch {
    since_ns: u64,
    count: u32,
    told: bool,
}

impl ReplayWatch {
    /// Counts one more. The number to tell control, once per [`QUIET_NS`], where it is notable.
    pub(crate) fn count(&mut self, now_ns: u64) -> Option<u32> {
        if now_ns.saturating_sub(self.since_ns) >= QUIET_NS {
            *self = Self { since_ns: now_ns, count: 0, told: false };
        }
        self.count = self.count.saturating_add(1);
        if self.told || self.count < REPLAYS_NOTABLE {
            return None;
        }
        self.told = true;
        Some(self.count)
    }
}

/// Remembers which new outer address of the peer control has been told of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerWatch {
    told: Option<(IpAddr, u16)>,
    told_ns: u64,
}

impl PeerWatch {
    /// Whether to tell control that the peer is at `address` and `port` now.
    pub(crate) fn moved(&mut self, now_ns: u64, address: IpAddr, port: u16) -> bool {
        let again = self.told == Some((address, port));
        if self.told.is_some() && (again || now_ns.saturating_sub(self.told_ns) < QUIET_NS) {
            return false;
        }
        *self = Self { told: Some((address, port)), told_ns: now_ns };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_are_told_once_per_second_and_only_in_bursts() {
        let mut watch = ReplayWatch::default();
        let told: Vec<u32> = (0..1_000).filter_map(|_| watch.count(5)).collect();
        assert_eq!(told, [REPLAYS_NOTABLE]);
        let told: Vec<u32> = (0..1_000).filter_map(|_| watch.count(QUIET_NS + 6)).collect();
        assert_eq!(told, [REPLAYS_NOTABLE]);
        let slow: Vec<u32> = (3..1_000).filter_map(|n| watch.count(n * QUIET_NS / 2)).collect();
        assert_eq!(slow, []);
    }

    #[test]
    fn a_wandering_peer_is_told_once_per_place_and_second() {
        let (a, b): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut watch = PeerWatch::default();
        assert!(watch.moved(1, a, 4500));
        assert!(!watch.moved(2 * QUIET_NS, a, 4500), "known");
        assert!(watch.moved(2 * QUIET_NS, b, 4500));
        assert!(!watch.moved(2 * QUIET_NS + 1, a, 4500), "too soon");
        assert!(watch.moved(4 * QUIET_NS, a, 4501));
    }
}
