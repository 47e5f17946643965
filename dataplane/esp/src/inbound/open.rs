//! Decryption and authentication of a burst.

use arrayvec::ArrayVec;
use pollux_abi::command::Direction;
use pollux_abi::{DropReason, Esn};
use pollux_aead::{OpenJob, OpenVerdict};
use pollux_packet::{BURST_MAX, Burst};

use crate::engine::Engine;
use crate::packet_mask::PacketMask;
use crate::sa::place;

/// Opens every packet in place; what is not authentic is dropped.
pub(crate) fn open(engine: &mut Engine, burst: &mut Burst, live: &mut PacketMask) {
    let (packets, metas) = burst.split_mut();
    let mut jobs: ArrayVec<OpenJob<'_>, BURST_MAX> = ArrayVec::new();
    let wanted = *live;
    for (at, packet) in packets.iter_mut().enumerate().filter(|(at, _)| wanted.contains(*at)) {
        let meta = &mut metas[at];
        let key = engine.sas.inbound.keys[place(meta.sa)].as_ref();
        let esp = packet.data_mut().get_mut(usize::from(meta.l4)..);
        let (Some(key), Some(packet)) = (key, esp) else {
            // An owned SA has a key, and the lookup has read the ESP header.
            meta.drop_for(DropReason::EspTruncated);
            live.remove(at);
            continue;
        };
        jobs.push(OpenJob { key, packet, seq_high: Esn(meta.sequence).high() });
    }
    let mut verdicts = [OpenVerdict::Malformed; BURST_MAX];
    engine.aead.open_burst(&mut jobs, &mut verdicts);
    drop(jobs);
    for (at, verdict) in live.iter().zip(verdicts) {
        let meta = &mut metas[at];
        match verdict {
            OpenVerdict::Authentic => continue,
            OpenVerdict::BadIcv => {
                meta.drop_for(DropReason::BadIcv);
                if let Some(counters) = engine.sa_counters.row(Direction::Inbound, meta.sa) {
                    counters.icv_errors.add(1);
                }
            }
            OpenVerdict::Malformed => meta.drop_for(DropReason::EspTruncated),
        }
        live.remove(at);
    }
}
