//! Padding and next header, and the cut down to the inner packet.

use pollux_abi::DropReason;
use pollux_packet::esp::Trailer;
use pollux_packet::flow::NO_NEXT_HEADER;
use pollux_packet::{IpVersion, Meta, Packet};

use crate::engine::Engine;
use crate::sa::place;

/// Next header of a tunnel's IPv4 packet.
const IPV4: u8 = 4;
/// Next header of a tunnel's IPv6 packet.
const IPV6: u8 = 41;

/// Strips everything but the payload; the IP version that the next header says it has.
#[inline]
pub(crate) fn strip(engine: &Engine, packet: &mut Packet, meta: &Meta) -> Result<IpVersion, DropReason> {
    let sa = &engine.sas.inbound.hot[place(meta.sa)];
    let end = packet.len().saturating_sub(usize::from(sa.icv_len));
    packet.truncate(end);
    if !packet.pull_front(usize::from(meta.l4) + usize::from(sa.header_len)) {
        return Err(DropReason::EspTruncated);
    }
    let trailer = Trailer::parse(packet.data()).ok_or(DropReason::BadPadding)?;
    packet.truncate(trailer.payload_len);
    match trailer.next_header {
        IPV4 => Ok(IpVersion::V4),
        IPV6 => Ok(IpVersion::V6),
        NO_NEXT_HEADER => Err(DropReason::DummyPacket),
        _ => Err(DropReason::BadNextHeader),
    }
}
