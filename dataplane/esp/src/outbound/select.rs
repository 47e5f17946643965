//! From the flow to a policy, and from the policy to an SA or to the worker that has it.

use pollux_abi::command::PolicyAction;
use pollux_abi::{DropReason, Event, SaIndex, Spi};
use pollux_packet::{Burst, Fragment, Meta, Packet, Verdict, checksum, hint};

use crate::engine::Engine;
use crate::live::Live;
use crate::policy::{Entry, Match};
use crate::sa::{Choice, place};

/// Judges every pending packet. What is left is to be protected by an SA of ours.
pub(crate) fn select(engine: &mut Engine, now_ns: u64, burst: &mut Burst) -> Live {
    let mut live = Live::default();
    for (at, (packet, meta)) in burst.iter_mut().enumerate() {
        if !meta.is_pending() {
            continue;
        }
        let found = match engine.policies.outbound.leaving(&meta.flow) {
            Match::None => Err(DropReason::NoPolicy),
            Match::Undecided(_) => Err(DropReason::FragmentPorts),
            Match::Entry(entry) => Ok(*entry),
        };
        match found.map(|entry| (entry, entry.action)) {
            Err(reason) => meta.drop_for(reason),
            Ok((_, PolicyAction::Discard)) => meta.drop_for(DropReason::OutPolicyDiscard),
            Ok((_, PolicyAction::Bypass)) => {
                complete_checksum(engine, packet, meta);
                meta.verdict = Verdict::Bypass;
                engine.counters.bypassed.add(1);
            }
            Ok((entry, PolicyAction::Protect(_))) => {
                if choose(engine, now_ns, &entry, meta) {
                    live.add(at);
                }
            }
        }
    }
    live
}

/// Confirms what another worker chose: the SA is still the one it meant, and its selectors, which only its
/// owner knows, accept the packet.
pub(crate) fn confirm(engine: &Engine, burst: &mut Burst) -> Live {
    let mut live = Live::default();
    for (at, meta) in burst.metas_mut().iter_mut().enumerate() {
        meta.handed_over = true;
        let slot = engine.sas.outbound.slots.get(place(meta.sa)).copied().unwrap_or_default();
        if !slot.owned || meta.spi != Spi::new(slot.spi) {
            meta.drop_for(DropReason::HandoverLoop);
        } else if engine.sas.outbound.selectors[place(meta.sa)].accepts_leaving(&meta.flow) {
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

/// Whether the packet has an SA of ours now.
#[inline]
fn choose(engine: &mut Engine, now_ns: u64, entry: &Entry, meta: &mut Meta) -> bool {
    let newest = engine.policies.bundles.get(entry.bundle as usize).and_then(|bundle| bundle.newest);
    match engine.sas.choose(newest, &meta.flow) {
        Choice::Own(index) => {
            let sa = &engine.sas.outbound.hot[place(index)];
            hint::prefetch_lines(sa, 3);
            if let Some(key) = &engine.sas.outbound.keys[place(index)] {
                key.prefetch();
            }
            take(engine, meta, index);
            true
        }
        Choice::Other(index, owner) => {
            take(engine, meta, index);
            meta.verdict = Verdict::HandOver(owner);
            engine.counters.handed_over.add(1);
            false
        }
        Choice::None => {
            want(engine, now_ns, entry, meta);
            false
        }
    }
}

#[inline]
fn take(engine: &Engine, meta: &mut Meta, index: SaIndex) {
    meta.sa = index;
    meta.spi = Spi::new(engine.sas.outbound.slots[place(index)].spi);
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
