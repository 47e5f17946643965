//! ESP that came before its SA: held for a moment by the worker that received it.
//!
//! The responder of an exchange may send under the new SA together with its answer, and its first packets
//! then overtake what control makes of that answer: the command that installs the inbound SA. They are held
//! here, and offered again once a command has brought an SA with their SPI, or word of its owner.
//!
//! Outsiders can make such SPIs up. What they get for it is a place among as many packets as a burst has,
//! for [`HOLD_NS`]; whatever finds no place dies at once as an unknown SPI does, and so does what has waited
//! without an answer. A packet never waits twice.

use pollux_abi::DropReason;
use pollux_abi::command::{Command, Direction};
use pollux_packet::Verdict;

use crate::worker::Worker;

/// How long a packet waits for its SA. Control reads the answer, checks who signed it and derives keys: two
/// milliseconds on a quiet machine, some tens where processes queue for the core. Media are worth nothing
/// soon afterwards.
pub(crate) const HOLD_NS: u64 = 50_000_000;

/// Whether a command, once carried out, may be what a held packet waits for.
pub(crate) fn brings_sa(command: &Command) -> bool {
    match command {
        Command::SaAdd(spec, _) => spec.direction == Direction::Inbound,
        Command::SaRoute(route) => route.direction == Direction::Inbound,
        _ => false,
    }
}

impl Worker {
    /// Sends the packets whose SA has come through the inbound stages, before any that is received now.
    pub(crate) fn release_early(&mut self) {
        if !core::mem::take(&mut self.sa_came) || self.early.is_empty() {
            return;
        }
        let (engine, burst) = (&self.engine, &mut self.burst);
        let mut sink = Self::sink(&mut self.pool, &self.counters);
        let (now_ns, stale_ns) = (self.now_ns, self.stale_ns);
        self.early.take_where(
            |meta| meta.spi.is_some_and(|spi| engine.knows_spi(spi)),
            |packet, mut meta| {
                meta.verdict = Verdict::Pending;
                // The burst is empty between stages and has as many places as there are held packets.
                let kept = if now_ns.saturating_sub(meta.rx_ns) > stale_ns {
                    Err(packet)
                } else {
                    burst.push(packet, meta)
                };
                if let Err(packet) = kept {
                    sink.drop(packet, DropReason::Stale);
                }
            },
        );
        if self.burst.is_empty() {
            return;
        }
        self.engine.inbound(self.now_ns, &mut self.burst);
        self.settle();
    }

    /// Gives up what has waited without an answer. Packets lie in the order in which they came, so that a look at the
    /// first is enough as a rule.
    pub(crate) fn expire_early(&mut self) {
        let now_ns = self.now_ns;
        let is_over = |rx_ns: u64| now_ns.saturating_sub(rx_ns) >= HOLD_NS;
        if !self.early.metas().first().is_some_and(|first| is_over(first.rx_ns)) {
            return;
        }
        let engine = &mut self.engine;
        let mut sink = Self::sink(&mut self.pool, &self.counters);
        self.early.take_where(
            |meta| is_over(meta.rx_ns),
            |packet, meta| sink.drop(packet, engine.give_up(now_ns, &meta)),
        );
    }
}
