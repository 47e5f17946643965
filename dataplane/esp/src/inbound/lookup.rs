//! From the SPI to the SA, or to the worker that has it.

use pollux_abi::{DropReason, Event, Spi};
use pollux_packet::{Burst, Class, Meta, Verdict, esp, hint};

use crate::engine::Engine;
use crate::live::Live;
use crate::sa::place;

/// Finds each ESP packet's SA. Packets of other workers' SAs get their verdict here.
pub(crate) fn lookup(engine: &mut Engine, now_ns: u64, burst: &mut Burst) -> Live {
    let mut live = Live::default();
    let mut spis = [0u32; pollux_packet::BURST_MAX];
    for (at, (packet, meta)) in burst.iter_mut().enumerate() {
        if !meta.is_pending() || meta.class == Class::Plain {
            continue;
        }
        let Some(header) = packet.data().get(usize::from(meta.l4)..).and_then(esp::Header::parse) else {
            meta.drop_for(DropReason::Malformed);
            continue;
        };
        spis[at] = header.spi;
        meta.sequence = u64::from(header.sequence);
        if let Some((slot, sa)) = engine.sas.guess(header.spi) {
            hint::prefetch(slot);
            hint::prefetch_lines(sa, 2);
        }
        live.add(at);
    }
    let (_, metas) = burst.split_mut();
    for at in live.iter() {
        if !find(engine, now_ns, spis[at], &mut metas[at]) {
            live.remove(at);
        }
    }
    live
}

/// Whether the packet's SA is ours.
#[inline]
fn find(engine: &mut Engine, now_ns: u64, spi: u32, meta: &mut Meta) -> bool {
    let Some(index) = engine.sas.find_spi(spi) else {
        unknown(engine, now_ns, spi, meta);
        return false;
    };
    meta.sa = index;
    meta.spi = Spi::new(spi);
    let slot = engine.sas.inbound.slots[place(index)];
    if slot.owned {
        return true;
    }
    if meta.handed_over {
        meta.drop_for(DropReason::HandoverLoop);
    } else {
        meta.verdict = Verdict::HandOver(slot.owner);
        engine.counters.handed_over.add(1);
    }
    false
}

#[cold]
fn unknown(engine: &mut Engine, now_ns: u64, spi: u32, meta: &mut Meta) {
    meta.drop_for(DropReason::UnknownSpi);
    if let Some(count) = engine.unknown_spis.hit(now_ns, (spi, meta.flow.source_bits())) {
        engine.tell(Event::UnknownSpi { spi, source: meta.flow.source(), count });
    }
}
