//! Stalls: the stamp that the watchdog reads, and what a worker does when it wakes from one.

use pollux_abi::DropReason;
use pollux_packet::Meta;

use crate::stats::Activity;
use crate::worker::Worker;

/// Bursts that are discarded from one port after a stall: more than the largest receive ring holds.
const STALE_BURSTS_MAX: usize = 1024;

/// How often the slow counters are published.
const PUBLISH_NS: u64 = 100_000_000;

impl Worker {
    /// Takes the time of the round, leaves the watchdog's stamp, and discards what a stall has aged.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        self.counters.heartbeat_ns.set(now_ns);
        self.counters.activity.set(Activity::Running as u64);
        self.forwarder.begin(now_ns);
        let away_ns = now_ns.saturating_sub(self.last_round_ns);
        if self.last_round_ns != 0 && away_ns > self.stale_ns {
            self.counters.stalls.add(1);
            self.discard_stale();
        }
        if now_ns.saturating_sub(self.published_ns) >= PUBLISH_NS {
            self.publish();
        }
    }

    /// Everything in the receive rings has waited for up to the whole stall. A late voice packet is worth
    /// less than none: the jitter buffer has given it up, and behind it the fresh ones wait.
    fn discard_stale(&mut self) {
        for entry in &mut self.ports {
            let Some(port) = entry.port.as_mut() else { continue };
            for _ in 0..STALE_BURSTS_MAX {
                let meta = Meta { rx_ns: self.now_ns, ..Meta::default() };
                let count = port.rx_burst(&mut self.pool, &meta, &mut self.burst);
                for (packet, _) in self.burst.drain() {
                    self.pool.put(packet);
                }
                self.counters.drops.add(DropReason::Stale, count as u64);
                if count < pollux_packet::BURST_MAX {
                    break;
                }
            }
            port.reclaim(&mut self.pool);
        }
    }

    /// Writes ledger and port counters to where the housekeeper reads them.
    pub(crate) fn publish(&mut self) {
        self.published_ns = self.now_ns;
        self.counters.publish_ledger(&self.ledger());
        for (entry, counters) in self.ports.iter().zip(&self.counters.ports) {
            if let Some(port) = &entry.port {
                counters.publish(&port.stats());
            }
        }
    }
}
