//! From the SPI to the SA, or to the worker that has it.

use pollux_abi::command::Direction;
use pollux_abi::{DropReason, Event, Spi};
use pollux_packet::{Burst, Class, Meta, Verdict, esp, hint};

use crate::engine::Engine;
use crate::packet_mask::PacketMask;
use crate::sa::{key_lines, place};

/// Finds each ESP packet's SA. Packets of other workers' SAs get their verdict here.
pub(crate) fn lookup(engine: &mut Engine, now_ns: u64, burst: &mut Burst) -> PacketMask {
    let mut live = PacketMask::default();
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
        prefetch(engine, header.spi, packet.len());
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

/// Asks for what the next stages read of an SA, for a packet of `len` octets. The index in its SPI is a guess,
/// right for all SPIs of our own making.
#[inline]
fn prefetch(engine: &Engine, spi: u32, len: usize) {
    let (Some(index), half) = (engine.sas.guess(spi), &engine.sas.inbound) else { return };
    let at = place(index);
    hint::prefetch(&half.slots[at]);
    hint::prefetch_lines(&half.hot[at], 2);
    // Whether there is a key is not asked: the answer would have to be waited for.
    hint::prefetch_lines(&half.keys[at], key_lines(len));
    half.selectors.prefetch(at);
    if let Some(counters) = engine.sa_counters.row(Direction::Inbound, index) {
        hint::prefetch(counters);
    }
}

/// Whether the packet's SA is ours.
#[inline]
fn find(engine: &mut Engine, now_ns: u64, spi: u32, meta: &mut Meta) -> bool {
    let Some(index) = engine.sas.find_spi(spi) else {
        meta.spi = Spi::new(spi);
        meta.verdict = if engine.sas.may_come(spi) {
            Verdict::Early
        } else {
            Verdict::Drop(give_up(engine, now_ns, spi, meta))
        };
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
    }
    false
}

/// Tells control of a packet whose SPI nobody knows, and why it dies.
#[cold]
pub(crate) fn give_up(engine: &mut Engine, now_ns: u64, spi: u32, meta: &Meta) -> DropReason {
    let source = meta.flow.source();
    if let Some(count) = engine.unknown_spis.hit(now_ns, (spi, source)) {
        engine.tell(Event::UnknownSpi { spi, source, count });
    }
    DropReason::UnknownSpi
}
