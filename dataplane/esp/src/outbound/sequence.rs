//! Sequence numbers and IVs: each is given once, and reserved in the counter file before it is.

use pollux_abi::checkpoint::Checkpoint;
use pollux_abi::command::Direction;
use pollux_abi::event::LimitKind;
use pollux_packet::{Meta, Packet};

use crate::engine::Engine;
use crate::replay::count_packet;
use crate::sa::{OutboundSa, Reached, flag, place};

/// Gives an admitted packet its number, counts it, and returns its IV.
#[inline]
pub(crate) fn number(engine: &mut Engine, now_ns: u64, packet: &Packet, meta: &mut Meta) -> u64 {
    let sa = &mut engine.sas.outbound.hot[place(meta.sa)];
    if sa.next_seq >= sa.reserved
        && let Some(checkpoint) = engine.checkpoints.get(sa.checkpoint as usize)
    {
        reserve(sa, checkpoint);
    }
    meta.sequence = sa.next_seq;
    let iv = sa.next_iv;
    sa.next_seq += 1;
    sa.next_iv = iv.wrapping_add(1);
    let space = space_reached(sa, meta.sequence);
    let Some(counters) = engine.sa_counters.row(Direction::Outbound, meta.sa) else { return iv };
    count_packet(counters, now_ns, packet.len() as u64);
    counters.highest_seq.set(meta.sequence);
    let limits = sa.limits.reached(counters.packets.value(), counters.bytes.value());
    for reached in [space, limits].into_iter().flatten() {
        engine.tell_limit(Direction::Outbound, meta.sa, reached);
    }
    iv
}

/// Promises in the counter file that the step of numbers after the next one may be in use. The housekeeping of
/// the counter file has the time of a step to bring that to the disk.
#[cold]
fn reserve(sa: &mut OutboundSa, checkpoint: &Checkpoint) {
    let end = sa.last_seq().saturating_add(1);
    sa.reserved = sa.next_seq.saturating_add(Checkpoint::STEP).min(end);
    checkpoint.reserve(sa.next_seq.saturating_add(2 * Checkpoint::STEP).min(end).max(checkpoint.reserved()));
}

/// Whether the number space is used up, or seven eighths of it are.
//= RFC 4303 §3.3.3
#[inline]
fn space_reached(sa: &mut OutboundSa, sequence: u64) -> Option<Reached> {
    let last = sa.last_seq();
    if sequence >= last {
        sa.flags |= flag::EXHAUSTED;
        return Some(Reached { hard: true, kind: LimitKind::Sequence });
    }
    (sequence >= last - last / 8).then_some(Reached { hard: false, kind: LimitKind::Sequence })
}
