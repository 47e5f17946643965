//! ESP in UDP (RFC 3948).

use pollux_packet::{Flow, IpVersion, Packet, flow, udp};

use crate::sa::OutboundSa;

/// Puts the SA's UDP header, if it has one, before the ESP packet. The protocol of the outer IP header.
#[inline]
pub(crate) fn push(sa: &OutboundSa, packet: &mut Packet) -> Option<u8> {
    let Some((local, remote)) = sa.encap else { return Some(flow::ESP) };
    let payload_len = u16::try_from(packet.len()).ok()?;
    packet.push_front(udp::HEADER_LEN)?.copy_from_slice(&udp::header(local, remote, payload_len));
    Some(flow::UDP)
}

/// Writes the UDP checksum of a sealed packet where there must be one: over IPv6, whose hosts drop
/// datagrams without (RFC 8200 §8.1). Over IPv4 it stays 0 (RFC 3948 §2.1).
#[inline]
pub(crate) fn finish(outer: &Flow, packet: &mut Packet, l4: usize) {
    if outer.version == IpVersion::V6
        && outer.protocol == flow::UDP
        && let Some(datagram) =
            l4.checked_sub(udp::HEADER_LEN).and_then(|start| packet.data_mut().get_mut(start..))
    {
        udp::write_checksum(outer, datagram);
    }
}
