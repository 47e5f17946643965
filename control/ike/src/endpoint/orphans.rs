//! SAs that an earlier control process has left in the data plane. They go on working until new ones have
//! taken their place and they are silent, or until they are too old.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId};

use super::command::LiveSa;
use super::output::{Output, SaCommand};
use crate::time::Instant;

/// The list, and what it is asked by.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    live: BTreeMap<SaId, LiveSa>,
    by_reqid: BTreeMap<Reqid, BTreeSet<SaId>>,
    /// How many there are of each peer.
    peers: BTreeMap<IpAddr, u32>,
    superseded: BTreeSet<Reqid>,
    give_up: Option<Instant>,
    look: Option<Instant>,
}

impl Orphans {
    /// Takes over what the data plane holds.
    pub(crate) fn adopt(&mut self, now: Instant, live: Vec<LiveSa>, lifetime: Duration) {
        *self = Self::default();
        self.give_up = (!live.is_empty()).then_some(now + lifetime);
        self.look = (!live.is_empty()).then_some(now + LOOK_EVERY);
        for sa in live {
            *self.peers.entry(sa.remote).or_default() += 1;
            self.by_reqid.entry(sa.reqid).or_default().insert(sa.id);
            self.live.insert(sa.id, sa);
        }
    }

    /// The data plane died, and they with it.
    pub(crate) fn died(&mut self) {
        *self = Self::default();
    }

    /// Whether a peer still has SAs of an earlier life.
    pub(crate) fn has_peer(&self, remote: IpAddr) -> bool {
        self.peers.contains_key(&remote)
    }

    /// Whether one of them has this reqid.
    pub(crate) fn has_reqid(&self, reqid: Reqid) -> bool {
        self.by_reqid.contains_key(&reqid)
    }

    /// Peers with such SAs, and the place of each: the one whose traffic is newest has the first.
    pub(crate) fn places(&self) -> BTreeMap<IpAddr, usize> {
        let mut by_idle: Vec<(u64, IpAddr)> = self.live.values().map(|sa| (sa.idle_ns, sa.remote)).collect();
        by_idle.sort_unstable();
        let mut places = BTreeMap::new();
        for (place, (_, remote)) in by_idle.into_iter().enumerate() {
            places.entry(remote).or_insert(place);
        }
        places
    }

    /// New SAs of this reqid work: the old outbound ones go, the inbound ones wait for silence.
    pub(crate) fn superseded(&mut self, reqid: Reqid, out: &mut impl Extend<Output>) {
        let Some(ids) = self.by_reqid.get(&reqid) else { return };
        let is_outbound =
            |id: &&SaId| self.live.get(id).is_some_and(|sa| sa.direction == Direction::Outbound);
        let outbound: Vec<SaId> = ids.iter().filter(is_outbound).copied().collect();
        self.superseded.insert(reqid);
        self.remove(&outbound, out);
    }

    /// The answer to a query.
    pub(crate) fn on_stats(&mut self, id: SaId, stats: SaStats, out: &mut impl Extend<Output>) {
        let is_superseded = self.live.get(&id).is_some_and(|sa| self.superseded.contains(&sa.reqid));
        if is_superseded && Duration::from_nanos(stats.idle_ns) >= SILENCE {
            self.remove(&[id], out);
        }
    }

    /// Asks for counters, and gives up what is too old.
    pub(crate) fn on_timeout(&mut self, now: Instant, out: &mut impl Extend<Output>) {
        if self.give_up.is_some_and(|at| at <= now) {
            let all: Vec<SaId> = self.live.keys().copied().collect();
            self.remove(&all, out);
        }
        if self.look.is_some_and(|at| at <= now) {
            let waiting = self.superseded.iter().filter_map(|reqid| self.by_reqid.get(reqid)).flatten();
            out.extend(waiting.map(|&id| Output::Sa(SaCommand::Query { id })));
            self.look = Some(now + LOOK_EVERY);
        }
        if self.live.is_empty() {
            self.give_up = None;
            self.look = None;
        }
    }

    /// When it needs a turn.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.give_up, self.look].into_iter().flatten().min()
    }

    fn remove(&mut self, ids: &[SaId], out: &mut impl Extend<Output>) {
        for id in ids {
            let Some(sa) = self.live.remove(id) else { continue };
            if let Some(count) = self.peers.get_mut(&sa.remote) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.peers.remove(&sa.remote);
                }
            }
            if let Some(of_reqid) = self.by_reqid.get_mut(&sa.reqid) {
                of_reqid.remove(id);
                if of_reqid.is_empty() {
                    self.by_reqid.remove(&sa.reqid);
                }
            }
            let remove = SaCommand::Remove { id: sa.id, spi: sa.spi, direction: sa.direction };
            out.extend([Output::Sa(remove)]);
        }
    }
}

/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An inbound SA whose peer has new ones, and which saw nothing for so long, is not needed any more.
const SILENCE: Duration = Duration::from_secs(30);
