//! Sequence numbers and IVs: each is given once, and reserved in the counter file before it is.

use pollux_abi::checkpoint::Checkpoint;
use pollux_abi::command::Direction;
use pollux_abi::event::LimitKind;
use pollux_packet::{BURST_MAX, Burst};

use crate::engine::Engine;
use crate::live::Live;
use crate::replay::count_packet;
use crate::sa::{OutboundSa, Reached, flag, place};

/// Gives each packet its number, counts it, and returns the IVs. What finds its SA stopped by a packet
/// before it in the burst is dropped.
pub(crate) fn number(
    engine: &mut Engine,
    now_ns: u64,
    burst: &mut Burst,
    live: &mut Live,
) -> [u64; BURST_MAX] {
    let mut ivs = [0; BURST_MAX];
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let meta = &mut metas[at];
        let sa = &mut engine.sas.outbound.hot[place(meta.sa)];
        if let Some(reason) = sa.refusal() {
            meta.drop_for(reason);
            live.remove(at);
            continue;
        }
        if sa.next_seq >= sa.reserved
            && let Some(checkpoint) = engine.checkpoints.get(sa.checkpoint as usize)
        {
            reserve(sa, checkpoint);
        }
        meta.sequence = sa.next_seq;
        ivs[at] = sa.next_iv;
        sa.next_seq += 1;
        sa.next_iv = sa.next_iv.wrapping_add(1);
        let space = space_reached(sa, meta.sequence);
        let Some(counters) = engine.sa_counters.row(Direction::Outbound, meta.sa) else { continue };
        count_packet(counters, now_ns, packets[at].len() as u64);
        counters.highest_seq.set(meta.sequence);
        let limits = sa.limits.reached(counters.packets.value(), counters.bytes.value());
        for reached in [space, limits].into_iter().flatten() {
            engine.tell_limit(Direction::Outbound, meta.sa, reached);
        }
    }
    ivs
}

/// Promises in the counter file that the next step of numbers may be in use, before the first one is.
#[cold]
fn reserve(sa: &mut OutboundSa, checkpoint: &Checkpoint) {
    sa.reserved = sa.next_seq.saturating_add(Checkpoint::STEP).min(sa.last_seq().saturating_add(1));
    checkpoint.reserve(sa.reserved);
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
