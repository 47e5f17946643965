//! The inbound stages, in this order: lookup, replay pre-check, open, replay commit, trailer, check, decap.

mod check;
mod clear;
mod decap;
mod lookup;
mod open;
mod trailer;

use pollux_packet::Burst;

use crate::engine::Engine;
use crate::replay;

/// Sends a burst through all inbound stages.
pub(crate) fn run(engine: &mut Engine, now_ns: u64, burst: &mut Burst) {
    let mut live = lookup::lookup(engine, now_ns, burst);
    if live.is_empty() {
        return;
    }
    replay::precheck(engine, now_ns, burst, &mut live);
    open::open(engine, burst, &mut live);
    replay::commit(engine, now_ns, burst, &mut live);
    trailer::strip(engine, burst, &mut live);
    check::check(engine, burst, &mut live);
    decap::decap(engine, burst, live);
}

pub(crate) use clear::{judge, judge_clear};
