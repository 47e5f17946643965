//! A worker's ports, and the way out of them.

use pollux_abi::DropReason;
use pollux_packet::{Burst, Meta, Packet, PortSlot, Role};
use pollux_port::{FramePool, PortState};

use crate::housekeeping::{BoxedPort, PortFacts};
use crate::stats::WorkerCounters;

/// One port of a worker.
pub struct PortEntry {
    /// The socket; `None` while its device is gone.
    pub port: Option<BoxedPort>,
    /// Which side it is on.
    pub role: Role,
    /// Addresses, MTU and state.
    pub facts: PortFacts,
    /// Packets of mixed bursts on their way out.
    pub(crate) queued: Burst,
}

impl PortEntry {
    /// A port with an empty queue.
    pub fn new(port: Option<BoxedPort>, role: Role, facts: PortFacts) -> Self {
        Self { port, role, facts, queued: Burst::new() }
    }
}

/// What is needed to send or to drop: lent by the worker.
pub(crate) struct PacketSink<'a> {
    pub(crate) pool: &'a mut FramePool,
    pub(crate) counters: &'a WorkerCounters,
}

impl PacketSink<'_> {
    /// Counts a drop and takes the frame back.
    #[inline]
    pub(crate) fn drop(&mut self, packet: Packet, reason: DropReason) {
        self.counters.drops.add(reason, 1);
        self.pool.put(packet);
    }
}

impl PortEntry {
    /// Sends a whole burst. It is empty afterwards: what does not leave is dropped.
    pub(crate) fn send(&mut self, burst: &mut Burst, sink: &mut PacketSink<'_>) {
        if !self.queued.is_empty() {
            for (packet, meta) in burst.drain() {
                self.queue(packet, meta, sink);
            }
            return;
        }
        transmit(self.port.as_mut(), self.facts.up, burst, sink);
    }

    /// Sends one packet, together with others of this round.
    pub(crate) fn queue(&mut self, packet: Packet, meta: Meta, sink: &mut PacketSink<'_>) {
        if self.queued.room() == 0 {
            self.flush(sink);
        }
        if let Err(packet) = self.queued.push(packet, meta) {
            sink.drop(packet, DropReason::TxRingFull);
        }
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self, sink: &mut PacketSink<'_>) {
        transmit(self.port.as_mut(), self.facts.up, &mut self.queued, sink);
    }
}

fn transmit(port: Option<&mut BoxedPort>, up: bool, burst: &mut Burst, sink: &mut PacketSink<'_>) {
    if burst.is_empty() {
        return;
    }
    let reason = match port {
        // A port that was down becomes up by sending: only a dead one is not worth a try.
        Some(port) if up && port.state() != PortState::Dead => {
            let mut sent = port.tx_burst(sink.pool, burst);
            if !burst.is_empty() {
                // The ring is full of what has been sent and not yet completed: one more try.
                port.kick();
                port.reclaim(sink.pool);
                sent += port.tx_burst(sink.pool, burst);
            }
            sink.counters.tx_packets.add(sent as u64);
            DropReason::TxRingFull
        }
        _ => DropReason::PortDown,
    };
    for (packet, _) in burst.drain() {
        sink.drop(packet, reason);
    }
}

/// The slot of the host port, where there is one.
pub(crate) fn host_slot(ports: &[PortEntry]) -> Option<PortSlot> {
    let at = ports.iter().position(|entry| entry.role == Role::Host)?;
    u8::try_from(at).ok().map(PortSlot)
}
