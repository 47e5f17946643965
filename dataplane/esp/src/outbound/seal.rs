//! Encryption of a burst.

use arrayvec::ArrayVec;
use pollux_abi::{DropReason, Esn};
use pollux_aead::SealJob;
use pollux_packet::{BURST_MAX, Burst, Verdict};

use crate::engine::Engine;
use crate::natt;
use crate::packet_mask::PacketMask;
use crate::sa::place;

/// Seals every packet in place; they are ready to be sent.
pub(crate) fn seal(engine: &Engine, burst: &mut Burst, mut live: PacketMask, ivs: &[u64; BURST_MAX]) {
    let (packets, metas) = burst.split_mut();
    let mut jobs: ArrayVec<SealJob<'_>, BURST_MAX> = ArrayVec::new();
    let wanted = live;
    for (at, packet) in packets.iter_mut().enumerate().filter(|(at, _)| wanted.contains(*at)) {
        let meta = &mut metas[at];
        let key = engine.sas.outbound.keys[place(meta.sa)].as_ref();
        let esp = packet.data_mut().get_mut(usize::from(meta.l4)..);
        if let (Some(key), Some(packet)) = (key, esp) {
            jobs.push(SealJob { key, packet, seq_high: Esn(meta.sequence).high(), iv: ivs[at] });
        } else {
            // An owned SA has a key. Without one nothing may leave.
            meta.drop_for(DropReason::NoSa);
            live.remove(at);
        }
    }
    engine.aead.seal_burst(&mut jobs);
    drop(jobs);
    for at in live.iter() {
        let meta = &mut metas[at];
        natt::finish(&meta.flow, &mut packets[at], usize::from(meta.l4));
        meta.verdict = Verdict::Forward;
    }
    engine.counters.encapsulated.add(u64::from(live.len()));
}
