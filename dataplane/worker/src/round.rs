//! One round: from every ring in to every ring out.

use pollux_abi::DropReason;
use pollux_packet::parse::ENCAP_PORT;
use pollux_packet::{BURST_MAX, Class, Meta, PortSlot, Role, Verdict, classify};

use crate::worker::Worker;

/// Bursts that one queue of another worker may take of a round.
const HANDOVER_BURSTS: usize = 1;

impl Worker {
    /// Does one round at the time `now_ns` (monotonic); returns how many packets it found. Nothing in it
    /// blocks, and nothing is unbounded: at most a burst from each port and each other worker, and a few
    /// commands.
    pub fn round(&mut self, now_ns: u64) -> usize {
        self.begin(now_ns);
        self.read_housekeeper();
        self.read_commands();
        let taken_over = self.take_over();
        let received = self.receive();
        self.forward_again();
        self.write_events();
        self.finish();
        received + taken_over
    }

    /// Packets that other workers handed over: their SAs are here.
    fn take_over(&mut self) -> usize {
        let mut taken = 0;
        for other in 0..self.handover.workers() {
            for _ in 0..HANDOVER_BURSTS {
                taken += self.take_over_class(other);
            }
        }
        taken
    }

    fn take_over_class(&mut self, other: usize) -> usize {
        let mut count = 0;
        while count < BURST_MAX {
            let Some((packet, mut meta)) = self.handover.take_from(other) else { break };
            count += 1;
            if self.now_ns.saturating_sub(meta.rx_ns) > self.stale_ns {
                meta.drop_for(DropReason::Stale);
            } else {
                meta.verdict = Verdict::Pending;
            }
            if let Err(packet) = self.burst.push(packet, meta) {
                self.pool.put(packet);
            }
        }
        if count != 0 {
            self.counters.taken_over.add(count as u64);
            // Both kinds may be in one burst; each engine call leaves the other kind pending.
            self.engine.inbound_owned(self.now_ns, &mut self.burst);
            self.engine.outbound_owned(self.now_ns, &mut self.burst);
            self.settle();
        }
        count
    }

    fn receive(&mut self) -> usize {
        let mut received = 0;
        for at in 0..self.ports.len() {
            received += self.receive_from(at);
        }
        self.counters.rx_packets.add(received as u64);
        received
    }

    fn receive_from(&mut self, at: usize) -> usize {
        let entry = &mut self.ports[at];
        let Some(port) = entry.port.as_mut() else { return 0 };
        #[expect(clippy::cast_possible_truncation, reason = "there are at most PORTS_MAX ports")]
        let meta = Meta::received(PortSlot(at as u8), entry.role, self.now_ns);
        let count = port.rx_burst(&mut self.pool, &meta, &mut self.burst);
        if count == 0 {
            return 0;
        }
        let role = entry.role;
        classify(&mut self.burst, ENCAP_PORT);
        match role {
            Role::Wan => {
                self.engine.inbound(self.now_ns, &mut self.burst);
                self.engine.inbound_clear(&mut self.burst);
            }
            Role::Lan | Role::Host => self.engine.outbound(self.now_ns, &mut self.burst),
        }
        self.settle();
        count
    }

    /// Packets out of a tunnel that would leave to the wan: the outbound policies decide, as for any other
    /// packet from inside. In clear they leave only where a policy says so.
    fn forward_again(&mut self) {
        if self.again.is_empty() {
            return;
        }
        core::mem::swap(&mut self.again, &mut self.burst);
        self.counters.hairpinned.add(self.burst.len() as u64);
        for meta in self.burst.metas_mut() {
            (meta.role, meta.class) = (Role::Lan, Class::Plain);
        }
        self.engine.outbound(self.now_ns, &mut self.burst);
        self.settle();
    }

    /// Carries out the verdicts of a burst; it is empty afterwards.
    fn settle(&mut self) {
        let mut outlet = Self::outlet(&mut self.pool, &self.counters);
        self.burst.take_dropped(|packet, reason| outlet.drop(packet, reason));
        if self.burst.is_empty() {
            return;
        }
        let handover = &mut self.handover;
        let counters = &self.counters;
        self.burst.take_where(
            |meta| matches!(meta.verdict, Verdict::HandOver(_)),
            |packet, meta| {
                let Verdict::HandOver(owner) = meta.verdict else { return };
                if meta.handed_over {
                    outlet.drop(packet, DropReason::HandoverLoop);
                    return;
                }
                match handover.give(owner, packet, meta) {
                    Ok(()) => counters.handed_over.add(1),
                    Err(packet) => outlet.drop(packet, DropReason::HandoverFull),
                }
            },
        );
        for meta in self.burst.metas_mut() {
            match meta.verdict {
                // The packet itself is gone, and counted; what is left is the answer to its sender.
                Verdict::Reply(reason) => {
                    counters.drops.add(reason, 1);
                    meta.verdict = Verdict::Bypass;
                }
                Verdict::Fragment(_) => meta.drop_for(DropReason::TooBig),
                Verdict::Pending => meta.drop_for(DropReason::NotOurs),
                _ => {}
            }
        }
        self.forwarder.forward(&mut self.burst, &mut self.ports, &mut outlet, &mut self.again);
    }

    /// Sends what is left, wakes whom it concerns, takes frames back.
    fn finish(&mut self) {
        let mut outlet = Self::outlet(&mut self.pool, &self.counters);
        self.forwarder.expire(&mut outlet);
        for entry in &mut self.ports {
            entry.flush(&mut outlet);
            if let Some(port) = entry.port.as_mut() {
                port.kick();
                port.reclaim(outlet.pool);
            }
        }
        self.handover.exchange_frames(&mut self.pool);
        self.tell_housekeeper();
        self.counters.rounds.add(1);
        self.last_round_ns = self.now_ns;
    }
}
