//! The inbound stages, in this order: lookup, replay pre-check, open, replay commit, trailer, check, authority,
//! decap. Those behind the cipher go over one packet after the other, as each reads what the one before has just
//! written, and once more for the authority: what is known of each flow is on its way meanwhile.

mod check;
mod clear;
mod decap;
mod lookup;
mod open;
mod trailer;

use pollux_abi::DropReason;
use pollux_packet::{BURST_MAX, Burst, Meta, Packet};

use crate::engine::Engine;
use crate::outbound::{FlowAnswer, FlowSlot};
use crate::replay;

/// Sends a burst through all inbound stages.
pub(crate) fn run(engine: &mut Engine, now_ns: u64, burst: &mut Burst) {
    let mut live = lookup::lookup(engine, now_ns, burst);
    if live.is_empty() {
        return;
    }
    replay::precheck(engine, now_ns, burst, &mut live);
    open::open(engine, burst, &mut live);
    let mut places = [FlowSlot::default(); BURST_MAX];
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let (packet, meta) = (&mut packets[at], &mut metas[at]);
        if !replay::commit(engine, now_ns, packet, meta) {
            live.remove(at);
        } else if let Err(reason) = unwrap(engine, packet, meta) {
            meta.drop_for(reason);
            live.remove(at);
        } else {
            places[at] = engine.arrivals.place(&meta.flow);
        }
    }
    for at in live.iter() {
        let (packet, meta) = (&mut packets[at], &mut metas[at]);
        let verdict = authorize(engine, places[at], meta).and_then(|()| decap::decap(engine, packet, meta));
        if let Err(reason) = verdict {
            meta.drop_for(reason);
            live.remove(at);
        }
    }
    engine.counters.decapsulated.add(u64::from(live.len()));
}

/// From an authenticated ESP packet to the packet in it.
#[inline]
fn unwrap(engine: &Engine, packet: &mut Packet, meta: &mut Meta) -> Result<(), DropReason> {
    let version = trailer::strip(engine, packet, meta)?;
    check::check(packet, meta, version)
}

/// Whether the packet may come by its SA. A flow that could come by it is remembered until an SA or a policy changes.
#[inline]
fn authorize(engine: &mut Engine, place: FlowSlot, meta: &Meta) -> Result<(), DropReason> {
    if engine.arrivals.find(place, &meta.flow).is_some_and(|known| known.sa == meta.sa) {
        return Ok(());
    }
    check::authority(engine, meta.sa, &meta.flow)?;
    engine.arrivals.keep(place, meta.flow, FlowAnswer { sa: meta.sa, ..FlowAnswer::default() });
    Ok(())
}

pub(crate) use clear::{judge, judge_clear};
pub(crate) use lookup::give_up;
