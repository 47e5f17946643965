//! Dead-peer detection that asks the data plane first: no probe while ESP arrives (RFC 7296 §2.4).

use core::time::Duration;

use pollux_abi::SaId;
use pollux_abi::event::SaStats;

use crate::endpoint::{DATA_PLANE_DEADLINE, SaCommand, Turn};
use crate::time::Instant;

/// What is being found out.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Inbound SAs whose counters were asked for.
    asked: Vec<SaId>,
}

/// What follows from a look at the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LivenessDecision {
    /// The peer was heard; look again then.
    Heard(Instant),
    /// The data plane is being asked; look again when it answers, at the latest then.
    Asking(Instant),
    /// The peer has been silent for so long.
    Silent(Duration),
}

impl Watch {
    /// The timer fired: is there a reason to ask the peer?
    pub(crate) fn look(
        &mut self,
        turn: &mut Turn<'_>,
        heard: Instant,
        delay: Duration,
        inbound: impl Iterator<Item = SaId>,
    ) -> LivenessDecision {
        let idle = turn.now.since(heard);
        if idle < delay {
            self.asked.clear();
            return LivenessDecision::Heard(heard + delay);
        }
        let asked_before = !core::mem::take(&mut self.asked).is_empty();
        if asked_before || !turn.shared.data_plane {
            return LivenessDecision::Silent(idle);
        }
        self.asked = inbound.collect();
        if self.asked.is_empty() {
            return LivenessDecision::Silent(idle);
        }
        for &id in &self.asked {
            turn.sa(SaCommand::Query { id });
        }
        LivenessDecision::Asking(turn.now + DATA_PLANE_DEADLINE)
    }

    /// The data plane answered. Returns when to look again.
    pub(crate) fn on_stats(
        &mut self,
        now: Instant,
        sa: SaId,
        stats: SaStats,
        delay: Duration,
    ) -> Option<Instant> {
        let at = self.asked.iter().position(|&asked| asked == sa)?;
        let idle = Duration::from_nanos(stats.idle_ns);
        if idle < delay {
            self.asked.clear();
            return Some(now + delay.saturating_sub(idle));
        }
        if self.asked.len() == 1 {
            // The last answer: none was fresh. The entry stays, so that the next look knows it has asked.
            return Some(now);
        }
        self.asked.swap_remove(at);
        None
    }
}
