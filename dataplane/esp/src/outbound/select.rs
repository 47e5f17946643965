//! From the flow to a policy, and from the policy to an SA or to the worker that has it.

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::{DropReason, Event, SaIndex, Spi, WorkerId};
use pollux_packet::{BURST_MAX, Burst, Fragment, Meta, Packet, Verdict, checksum, hint};

use super::flow_cache::{FlowAnswer, FlowSlot};
use crate::engine::Engine;
use crate::packet_mask::PacketMask;
use crate::policy::{Entry, Match};
use crate::sa::{Choice, key_lines, place};

/// Judges every pending packet. What is left is to be protected by an SA of ours.
pub(crate) fn select(engine: &mut Engine, now_ns: u64, burst: &mut Burst) -> PacketMask {
    let mut live = PacketMask::default();
    let mut places = [FlowSlot::default(); BURST_MAX];
    for (place, meta) in places.iter_mut().zip(burst.metas()) {
        *place = engine.flows.place(&meta.flow);
    }
    for (at, (packet, meta)) in burst.iter_mut().enumerate() {
        if !meta.is_pending() {
            continue;
        }
        let known = engine.flows.find(places[at], &meta.flow);
        let answer = known.or_else(|| {
            let answer = judge(engine, now_ns, packet, meta)?;
            engine.flows.keep(places[at], meta.flow, answer);
            Some(answer)
        });
        let Some(FlowAnswer { sa, spi, owner }) = answer else { continue };
        (meta.sa, meta.spi) = (sa, spi);
        if let Some(owner) = owner {
            meta.verdict = Verdict::HandOver(owner);
            continue;
        }
        live.add(at);
        prefetch(engine, sa, packet.len());
    }
    live
}

/// Asks the policies. The SA that the packet takes, of this worker or of another; where there is none, the packet has
/// its verdict.
fn judge(engine: &mut Engine, now_ns: u64, packet: &mut Packet, meta: &mut Meta) -> Option<FlowAnswer> {
    let entry = match engine.policies.outbound.leaving(&meta.flow) {
        Match::None => {
            meta.drop_for(DropReason::NoPolicy);
            return None;
        }
        Match::Undecided(_) => {
            meta.drop_for(DropReason::FragmentPorts);
            return None;
        }
        Match::Entry(entry) => entry,
    };
    match entry.action {
        PolicyAction::Discard => meta.drop_for(DropReason::OutPolicyDiscard),
        PolicyAction::Bypass => {
            complete_checksum(engine, packet, meta);
            meta.verdict = Verdict::Bypass;
            engine.counters.bypassed.add(1);
        }
        PolicyAction::Protect(_) => {
            let entry = *entry;
            return choose(engine, now_ns, &entry, meta);
        }
    }
    None
}

/// Asks for what the next stages read of an SA, for a packet of `len` octets.
#[inline]
fn prefetch(engine: &Engine, index: SaIndex, len: usize) {
    let (half, at) = (&engine.sas.outbound, place(index));
    if let (Some(sa), Some(key)) = (half.hot.get(at), half.keys.get(at)) {
        hint::prefetch_lines(sa, 3);
        // Whether there is a key is not asked: the answer would have to be waited for.
        hint::prefetch_lines(key, key_lines(len));
    }
    if let Some(counters) = engine.sa_counters.row(Direction::Outbound, index) {
        hint::prefetch(counters);
    }
}

/// Confirms what another worker chose: the SA is still the one it meant, and its selectors, which may have changed,
/// accept the packet.
pub(crate) fn confirm(engine: &Engine, burst: &mut Burst) -> PacketMask {
    let mut live = PacketMask::default();
    for (at, meta) in burst.metas_mut().iter_mut().enumerate() {
        meta.handed_over = true;
        let slot = engine.sas.outbound.slots.get(place(meta.sa)).copied().unwrap_or_default();
        if !slot.owned || meta.spi != Spi::new(slot.spi) {
            meta.drop_for(DropReason::HandoverLoop);
        } else if engine.sas.outbound.selectors.accepts_leaving(place(meta.sa), &meta.flow) {
            meta.verdict = Verdict::Pending;
            live.add(at);
        } else {
            meta.drop_for(DropReason::NoSa);
        }
    }
    live
}

/// Completes a checksum that the sender left to its device (see [`checksum::complete`]).
#[inline]
pub(crate) fn complete_checksum(engine: &Engine, packet: &mut Packet, meta: &Meta) {
    if meta.fragment == Fragment::Whole
        && let Some(transport) = packet.data_mut().get_mut(usize::from(meta.l4)..)
        && checksum::complete(&meta.flow, transport)
    {
        engine.counters.csum_completed.add(1);
    }
}

/// As [`judge`], for a packet that a policy protects.
#[inline]
fn choose(engine: &mut Engine, now_ns: u64, entry: &Entry, meta: &mut Meta) -> Option<FlowAnswer> {
    let newest = engine.policies.bundles.get(entry.bundle as usize).and_then(|bundle| bundle.newest);
    match engine.sas.choose(newest, &meta.flow) {
        Choice::Own(index) => Some(answer(engine, index, None)),
        Choice::Other(index, owner) => Some(answer(engine, index, Some(owner))),
        Choice::None => {
            want(engine, now_ns, entry, meta);
            None
        }
    }
}

#[inline]
fn answer(engine: &Engine, sa: SaIndex, owner: Option<WorkerId>) -> FlowAnswer {
    FlowAnswer { sa, spi: Spi::new(engine.sas.outbound.slots[place(sa)].spi), owner }
}

#[cold]
fn want(engine: &mut Engine, now_ns: u64, entry: &Entry, meta: &mut Meta) {
    meta.drop_for(DropReason::NoSa);
    if engine.wanted.hit(now_ns, entry.id).is_some() {
        engine.tell(Event::WantedSa {
            policy: entry.id,
            source: meta.flow.source(),
            destination: meta.flow.destination(),
            protocol: meta.flow.protocol,
            source_port: meta.flow.source_port,
            destination_port: meta.flow.destination_port,
        });
    }
}
