//! One round: from every ring in to every ring out.

use arrayvec::ArrayVec;
use pollux_abi::DropReason;
use pollux_esp::fragment;
use pollux_packet::parse::ENCAP_PORT;
use pollux_packet::{BURST_MAX, Class, Meta, Packet, PortSlot, Role, Verdict, classify};

use crate::worker::Worker;

/// Octets before a packet that this worker makes itself: as many as the kernel leaves before a received one.
const HEADROOM: u16 = 256;

impl Worker {
    /// Does one round at the time `now_ns` (monotonic); returns how many packets it found. Nothing in it
    /// blocks, and nothing is unbounded: at most a burst from each port and each other worker, and a few
    /// commands.
    pub fn round(&mut self, now_ns: u64) -> usize {
        self.begin(now_ns);
        self.read_housekeeper();
        self.read_commands();
        self.release_early();
        let left = self.take_up_what_is_left();
        let taken_over = self.take_over();
        let received = self.receive();
        self.write_events();
        self.finish();
        received + taken_over + left
    }

    /// What the last round has left to be decided again: answers to answers, and what came out of one tunnel too long
    /// for the next. At most a burst of each.
    fn take_up_what_is_left(&mut self) -> usize {
        let left = self.again.len() + self.large.len();
        if left != 0 {
            self.settle();
        }
        left
    }

    /// Packets that other workers handed over: their SAs are here.
    fn take_over(&mut self) -> usize {
        let mut taken = 0;
        for other in 0..self.handover.workers() {
            taken += self.take_over_from(other);
        }
        taken
    }

    fn take_over_from(&mut self, other: usize) -> usize {
        let mut count = 0;
        while count < BURST_MAX {
            let Some((packet, mut meta)) = self.handover.take_from(other) else { break };
            count += 1;
            if self.now_ns.saturating_sub(meta.rx_ns) > self.stale_ns {
                Self::sink(&mut self.pool, &self.counters).drop(packet, DropReason::Stale);
                continue;
            }
            meta.verdict = Verdict::Pending;
            let burst = if meta.class == Class::Plain { &mut self.aside } else { &mut self.burst };
            if let Err(packet) = burst.push(packet, meta) {
                self.pool.put(packet);
            }
        }
        if !self.burst.is_empty() {
            self.engine.inbound_owned(self.now_ns, &mut self.burst);
            self.settle();
        }
        if !self.aside.is_empty() {
            core::mem::swap(&mut self.aside, &mut self.burst);
            self.engine.outbound_owned(self.now_ns, &mut self.burst);
            self.settle();
        }
        self.counters.taken_over.add(count as u64);
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

    /// Packets that come before the outbound policies once more: fragments of what was too long, and what
    /// came out of a tunnel and would leave to the wan. In clear they leave only where a policy says so.
    fn decide_again(&mut self) {
        if self.again.is_empty() {
            return;
        }
        core::mem::swap(&mut self.again, &mut self.burst);
        self.counters.decided_again.add(self.burst.len() as u64);
        for meta in self.burst.metas_mut() {
            meta.class = Class::Plain;
        }
        self.engine.outbound(self.now_ns, &mut self.burst);
        self.carry_out_verdicts();
    }

    /// Carries out the verdicts of a burst, and what follows from them; all bursts are empty afterwards but
    /// for answers to answers, which wait for the next round.
    pub(crate) fn settle(&mut self) {
        self.carry_out_verdicts();
        while let Some((packet, meta)) = self.large.pop() {
            self.cut(packet, meta);
        }
        self.decide_again();
    }

    /// Cuts a packet that is too long for its path and may be cut.
    fn cut(&mut self, packet: Packet, meta: Meta) {
        let Verdict::Fragment(mtu) = meta.verdict else { return self.pool.put(packet) };
        let pieces = packet.len() / usize::from(mtu.max(1)) + 2;
        if self.again.room() < pieces {
            self.decide_again();
        }
        let (pool, again) = (&mut self.pool, &mut self.again);
        let mut lost = ArrayVec::<Packet, BURST_MAX>::new();
        let cut = fragment::split(
            &packet,
            meta,
            mtu,
            || pool.alloc(HEADROOM),
            |piece, meta| {
                if let Err(piece) = again.push(piece, meta) {
                    lost.push(piece);
                }
            },
        );
        let mut sink = Self::sink(&mut self.pool, &self.counters);
        for piece in lost {
            sink.drop(piece, DropReason::TooBig);
        }
        match cut {
            Ok(()) => sink.pool.put(packet),
            Err(reason) => sink.drop(packet, reason),
        }
    }

    fn carry_out_verdicts(&mut self) {
        let mut sink = Self::sink(&mut self.pool, &self.counters);
        if self.burst.metas().iter().all(|meta| matches!(meta.verdict, Verdict::Forward | Verdict::Bypass)) {
            self.forwarder.forward(&mut self.burst, &mut self.ports, &mut sink, &mut self.again);
            return;
        }
        self.burst.take_dropped(|packet, reason| sink.drop(packet, reason));
        let handover = &mut self.handover;
        let (large, early, engine) = (&mut self.large, &mut self.early, &mut self.engine);
        let now_ns = self.now_ns;
        self.burst.take_where(
            |meta| !matches!(meta.verdict, Verdict::Forward | Verdict::Bypass | Verdict::Reply(_)),
            |packet, meta| {
                let given = match meta.verdict {
                    Verdict::HandOver(owner) => handover
                        .give(owner, packet, meta)
                        .map(|()| engine.note_handed_over())
                        .map_err(|packet| (packet, DropReason::HandoverFull)),
                    Verdict::Fragment(_) => {
                        large.push(packet, meta).map_err(|packet| (packet, DropReason::TooBig))
                    }
                    Verdict::Early => match early.push(packet, meta) {
                        Ok(()) => {
                            sink.counters.held_early.add(1);
                            Ok(())
                        }
                        Err(packet) => Err((packet, engine.give_up(now_ns, &meta))),
                    },
                    _ => Err((packet, DropReason::NotOurs)),
                };
                if let Err((packet, reason)) = given {
                    sink.drop(packet, reason);
                }
            },
        );
        if self.burst.is_empty() {
            return;
        }
        for meta in self.burst.metas() {
            // The packet itself is gone; what is left is the answer to its sender.
            if let Verdict::Reply(reason) = meta.verdict {
                sink.counters.drops.add(reason, 1);
            }
        }
        self.forwarder.forward(&mut self.burst, &mut self.ports, &mut sink, &mut self.again);
    }

    /// Sends what is left, wakes whom it concerns, takes frames back.
    fn finish(&mut self) {
        self.expire_early();
        let mut sink = Self::sink(&mut self.pool, &self.counters);
        self.forwarder.expire(&mut sink);
        for entry in &mut self.ports {
            entry.flush(&mut sink);
            if let Some(port) = entry.port.as_mut() {
                port.kick();
                port.reclaim(sink.pool);
            }
        }
        self.handover.exchange_frames(&mut self.pool);
        self.tell_housekeeper();
        self.counters.rounds.add(1);
        self.last_round_ns = self.now_ns;
    }
}
