//! ESP in UDP (RFC 3948).

use pollux_packet::{Flow, IpVersion, Packet, flow, udp};

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
