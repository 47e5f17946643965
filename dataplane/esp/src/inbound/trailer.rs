//! Padding and next header, and the cut down to the inner packet.

use pollux_abi::DropReason;
use pollux_packet::esp::Trailer;
use pollux_packet::flow::NO_NEXT_HEADER;
use pollux_packet::{Burst, Packet};

use crate::engine::Engine;
use crate::live::Live;
use crate::sa::{InboundSa, place};

/// Next header of a tunnel's IPv4 packet.
pub(crate) const IPV4: u8 = 4;
/// Next header of a tunnel's IPv6 packet.
pub(crate) const IPV6: u8 = 41;

/// Strips everything but the payload. Whether its version is what the next header said is checked by the
/// next stage, which reads it: the next header is left in `Meta::flow.protocol` for that.
pub(crate) fn strip(engine: &Engine, burst: &mut Burst, live: &mut Live) {
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let meta = &mut metas[at];
        let sa = &engine.sas.inbound.hot[place(meta.sa)];
        match one(&mut packets[at], usize::from(meta.l4), sa) {
            Ok(next_header) => meta.flow.protocol = next_header,
            Err(reason) => {
                meta.drop_for(reason);
                live.remove(at);
            }
        }
    }
}

#[inline]
fn one(packet: &mut Packet, l4: usize, sa: &InboundSa) -> Result<u8, DropReason> {
    let end = packet.len().saturating_sub(usize::from(sa.icv_len));
    packet.truncate(end);
    if !packet.pull_front(l4 + usize::from(sa.header_len)) {
        return Err(DropReason::EspTruncated);
    }
    let trailer = Trailer::parse(packet.data()).ok_or(DropReason::BadPadding)?;
    packet.truncate(trailer.payload_len);
    match trailer.next_header {
        next @ (IPV4 | IPV6) => Ok(next),
        NO_NEXT_HEADER => Err(DropReason::DummyPacket),
        _ => Err(DropReason::BadNextHeader),
    }
}
