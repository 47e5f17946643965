//! The outbound stages, in this order: select, admit, number, encapsulate, seal.

mod admit;
mod encap;
mod flow_cache;
mod seal;
mod select;
mod sequence;

use pollux_packet::{BURST_MAX, Burst};

use crate::engine::Engine;
use crate::packet_mask::PacketMask;

/// Sends a burst from inside through all outbound stages.
pub(crate) fn run(engine: &mut Engine, now_ns: u64, burst: &mut Burst) {
    let live = select::select(engine, now_ns, burst);
    protect(engine, now_ns, burst, live);
}

/// Sends a burst through the stages that need its SAs' keys: another worker has chosen the SAs.
pub(crate) fn run_owned(engine: &mut Engine, now_ns: u64, burst: &mut Burst) {
    let live = select::confirm(engine, burst);
    protect(engine, now_ns, burst, live);
}

pub(crate) use flow_cache::{FlowAnswer, FlowCache, FlowSlot};

/// Admits, numbers and lays out one packet after the other, as what they read of an SA is the same; the cipher
/// then runs over the burst.
fn protect(engine: &mut Engine, now_ns: u64, burst: &mut Burst, mut live: PacketMask) {
    if live.is_empty() {
        return;
    }
    let mut ivs = [0; BURST_MAX];
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let (packet, meta) = (&mut packets[at], &mut metas[at]);
        if !admit::admit(engine, now_ns, packet, meta) {
            live.remove(at);
            continue;
        }
        ivs[at] = sequence::number(engine, now_ns, packet, meta);
        if !encap::encapsulate(engine, packet, meta) {
            live.remove(at);
        }
    }
    seal::seal(engine, burst, live, &ivs);
}
