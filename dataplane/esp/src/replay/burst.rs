//! Both halves of the replay check, each over a burst: before the cipher and after it.

use pollux_abi::command::Direction;
use pollux_abi::{DropReason, Esn, Event, SaCounters, SaIndex, SeqNo};
use pollux_packet::esp::TRAILER_LEN;
use pollux_packet::{Burst, Class, Meta, Packet, hint};

use crate::engine::Engine;
use crate::packet_mask::PacketMask;
use crate::sa::{InboundSa, flag, place};

/// Drops what the SA or its window refuses, before any cipher work; fills in whole sequence numbers.
pub(crate) fn precheck(engine: &mut Engine, now_ns: u64, burst: &mut Burst, live: &mut PacketMask) {
    let (_, metas) = burst.split_mut();
    for at in live.iter() {
        let meta = &mut metas[at];
        let index = place(meta.sa);
        let sa = &engine.sas.inbound.hot[index];
        let (start, count) = sa.window.place();
        let verdict = suits(sa, meta).and_then(|()| {
            let sequence = whole(sa, meta.sequence)?;
            meta.sequence = sequence;
            let words = engine.windows.words(start, count);
            // The commit behind the cipher writes there, whether or not the check reads.
            hint::prefetch(sa.window.word_of(words, sequence));
            sa.window.check(words, sequence)
        });
        if let Err(reason) = verdict {
            refuse(engine, now_ns, meta, reason);
            live.remove(at);
        }
    }
}

/// Marks the number of an authenticated packet as seen, counts the packet, and raises what control must hear.
/// False, and dropped, where a packet before it in the burst had the number.
#[inline]
pub(crate) fn commit(engine: &mut Engine, now_ns: u64, packet: &Packet, meta: &mut Meta) -> bool {
    let sa = &mut engine.sas.inbound.hot[place(meta.sa)];
    let (start, count) = sa.window.place();
    let newest = meta.sequence > sa.window.top();
    let lost = match sa.window.commit(engine.windows.words(start, count), meta.sequence) {
        Ok(lost) => lost,
        Err(reason) => {
            refuse(engine, now_ns, meta, reason);
            return false;
        }
    };
    let len = inner_len(packet.data(), usize::from(meta.l4), sa);
    let Some(counters) = engine.sa_counters.row(Direction::Inbound, meta.sa) else { return true };
    count_packet(counters, now_ns, len);
    counters.lost.add(lost);
    if newest {
        counters.highest_seq.set(meta.sequence);
        if let Some(checkpoint) = engine.checkpoints.get(sa.checkpoint as usize) {
            checkpoint.authenticate(meta.sequence);
        }
    }
    let reached = sa.limits.reached(counters.packets.value(), counters.bytes.value());
    let untold = sa.flags & flag::FIRST_TOLD == 0;
    let moved = newest && has_moved(sa, meta);
    if untold {
        engine.tell_first(meta.sa);
    }
    if let Some(reached) = reached {
        engine.tell_limit(Direction::Inbound, meta.sa, reached);
    }
    if moved {
        engine.tell_moved(now_ns, meta);
    }
    true
}

/// Counts one packet of `len` octets.
#[inline]
pub(crate) fn count_packet(counters: &SaCounters, now_ns: u64, len: u64) {
    counters.packets.add(1);
    counters.bytes.add(len);
    counters.last_used_ns.set(now_ns);
}

/// Octets of the inner packet: what is left of a decrypted packet without headers, padding and ICV.
#[inline]
fn inner_len(packet: &[u8], l4: usize, sa: &InboundSa) -> u64 {
    let end = packet.len().saturating_sub(usize::from(sa.icv_len) + TRAILER_LEN);
    let padding = packet.get(end).copied().map_or(0, usize::from);
    end.saturating_sub(l4 + usize::from(sa.header_len) + padding) as u64
}

/// Whether the SA takes packets, and this one was sent to its address. In UDP or not: an SA takes both forms at any
/// time (RFC 7296 §2.23); its configuration decides what is sent.
#[inline]
fn suits(sa: &InboundSa, meta: &Meta) -> Result<(), DropReason> {
    if sa.flags & flag::STOPPED != 0 {
        return Err(DropReason::SaExpired);
    }
    if sa.local != meta.flow.destination_bits() || sa.version != meta.flow.version {
        return Err(DropReason::UnknownSpi);
    }
    Ok(())
}

/// The whole sequence number for the 32 bits on the wire.
#[inline]
fn whole(sa: &InboundSa, low: u64) -> Result<u64, DropReason> {
    if !sa.esn {
        // A sender whose peer has no window may let its numbers begin again (RFC 4303 §3.3.3).
        return if low == 0 && sa.window.size() > 0 { Err(DropReason::SequenceZero) } else { Ok(low) };
    }
    #[expect(clippy::cast_possible_truncation, reason = "32 bits were read from the wire")]
    let low = SeqNo(low as u32);
    match Esn::infer(Esn(sa.window.top()), sa.window.size(), low) {
        Some(Esn(0)) => Err(DropReason::SequenceZero),
        Some(Esn(sequence)) => Ok(sequence),
        None => Err(DropReason::TooOld),
    }
}

/// Whether an authenticated packet came from elsewhere than the SA says.
#[inline]
fn has_moved(sa: &InboundSa, meta: &Meta) -> bool {
    let in_udp = sa.encap && meta.class == Class::EspInUdp;
    sa.remote != meta.flow.source_bits() || (in_udp && sa.remote_port != meta.flow.source_port)
}

#[cold]
fn refuse(engine: &mut Engine, now_ns: u64, meta: &mut Meta, reason: DropReason) {
    meta.drop_for(reason);
    if matches!(reason, DropReason::Replayed | DropReason::TooOld) {
        count_replay(engine, now_ns, meta.sa);
    } else if reason == DropReason::SaExpired {
        engine.retell_limit(Direction::Inbound, meta.sa);
    }
}

fn count_replay(engine: &mut Engine, now_ns: u64, index: SaIndex) {
    if let Some(counters) = engine.sa_counters.row(Direction::Inbound, index) {
        counters.replay_errors.add(1);
    }
    let Some(record) = engine.sas.inbound.record_mut(index) else { return };
    let sa = record.id;
    if let Some(count) = record.replays.count(now_ns) {
        engine.tell(Event::ReplayBurst { sa, count });
    }
}
