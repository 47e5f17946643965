//! The outbound stages, in this order: select, admit, number, encapsulate, seal.

mod admit;
mod encap;
mod seal;
mod select;
mod sequence;

use pollux_packet::Burst;

use crate::engine::Engine;
use crate::live::Live;

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

fn protect(engine: &mut Engine, now_ns: u64, burst: &mut Burst, mut live: Live) {
    if live.is_empty() {
        return;
    }
    admit::admit(engine, now_ns, burst, &mut live);
    let ivs = sequence::number(engine, now_ns, burst, &mut live);
    encap::encapsulate(engine, burst, &mut live);
    seal::seal(engine, burst, live, &ivs);
}
