//! SAs that an earlier control process has left in the data plane. They go on working until new ones have
//! taken their place and they are silent, or until they are too old.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use pollux_abi::command::Direction;
use pollux_abi::event::SaStats;
use pollux_abi::{Reqid, SaId};

use super::command::LiveSa;
use super::output::{Output, SaCommand};
use crate::time::Instant;

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    live: Vec<LiveSa>,
    superseded: BTreeSet<Reqid>,
    give_up: Option<Instant>,
    look: Option<Instant>,
}

impl Orphans {
    /// Takes over what the data plane holds.
    pub(crate) fn adopt(&mut self, now: Instant, live: Vec<LiveSa>, lifetime: Duration) {
        self.superseded.clear();
        self.give_up = (!live.is_empty()).then_some(now + lifetime);
        self.look = (!live.is_empty()).then_some(now + LOOK_EVERY);
        self.live = live;
    }

    /// The data plane died, and they with it.
    pub(crate) fn died(&mut self) {
        *self = Self::default();
    }

    /// Whether a peer still has SAs of an earlier life.
    pub(crate) fn has_peer(&self, remote: IpAddr) -> bool {
        self.live.iter().any(|sa| sa.remote == remote)
    }

    /// Peers with such SAs, the one whose traffic is newest first.
    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        let mut by_idle: Vec<(u64, IpAddr)> = self.live.iter().map(|sa| (sa.idle_ns, sa.remote)).collect();
        by_idle.sort_unstable();
        let mut peers = Vec::new();
        for (_, remote) in by_idle {
            if !peers.contains(&remote) {
                peers.push(remote);
            }
        }
        peers
    }

    /// New SAs of this reqid work: the old outbound ones go, the inbound ones wait for silence.
    pub(crate) fn superseded(&mut self, reqid: Reqid, out: &mut impl Extend<Output>) {
        if !self.live.iter().any(|sa| sa.reqid == reqid) {
            return;
        }
        self.superseded.insert(reqid);
        self.remove_where(out, |sa| sa.reqid == reqid && sa.direction == Direction::Outbound);
    }

    /// The answer to a query.
    pub(crate) fn on_stats(&mut self, id: SaId, stats: SaStats, out: &mut impl Extend<Output>) {
        if Duration::from_nanos(stats.idle_ns) >= SILENCE {
            let Self { superseded, .. } = self;
            let superseded = superseded.clone();
            self.remove_where(out, |sa| sa.id == id && superseded.contains(&sa.reqid));
        }
    }

    /// Asks for counters, and gives up what is too old.
    pub(crate) fn on_timeout(&mut self, now: Instant, out: &mut impl Extend<Output>) {
        if self.give_up.is_some_and(|at| at <= now) {
            self.remove_where(out, |_| true);
        }
        if self.look.is_some_and(|at| at <= now) {
            let query = |sa: &LiveSa| Output::Sa(SaCommand::Query { id: sa.id });
            out.extend(self.live.iter().filter(|sa| self.superseded.contains(&sa.reqid)).map(query));
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

    fn remove_where(&mut self, out: &mut impl Extend<Output>, which: impl Fn(&LiveSa) -> bool) {
        let (go, stay) = core::mem::take(&mut self.live).into_iter().partition(|sa| which(sa));
        self.live = stay;
        let go: Vec<LiveSa> = go;
        out.extend(
            go.into_iter()
                .map(|sa| Output::Sa(SaCommand::Remove { id: sa.id, spi: sa.spi, direction: sa.direction })),
        );
    }
}

/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An inbound SA whose peer has new ones, and which saw nothing for so long, is not needed any more.
const SILENCE: Duration = Duration::from_secs(30);
