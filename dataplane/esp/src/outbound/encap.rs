//! Everything around the inner packet but the cipher's part: outer IP header, UDP, SPI, number, padding.

use pollux_abi::DropReason;
use pollux_abi::dscp::DfMark;
use pollux_packet::esp::{self, TRAILER_LEN, Trailer};
use pollux_packet::{Burst, Flow, Fragment, IpVersion, Meta, Packet, flow, ipv4, ipv6};

use crate::engine::Engine;
use crate::live::Live;
use crate::mark;
use crate::natt;
use crate::sa::{OutboundSa, place};

/// TTL and hop limit of outer headers.
const TTL: u8 = 64;
/// Next header of a tunnel's IPv4 packet.
const NEXT_IPV4: u8 = 4;
/// Next header of a tunnel's IPv6 packet.
const NEXT_IPV6: u8 = 41;

/// Lays each packet out as ESP with its outer headers; IV and ICV are room for the cipher. From here on,
/// `Meta` is of the outer packet, and `Meta::l4` is where the SPI begins.
pub(crate) fn encapsulate(engine: &mut Engine, burst: &mut Burst, live: &mut Live) {
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let meta = &mut metas[at];
        let sa = &engine.sas.outbound.hot[place(meta.sa)];
        let identification = engine.next_identification;
        engine.next_identification = identification.wrapping_add(1);
        if one(sa, &mut packets[at], meta, identification).is_none() {
            // The room was measured before; frames do not shrink.
            meta.drop_for(DropReason::NoHeadroom);
            live.remove(at);
        }
    }
}

#[inline]
fn one(sa: &OutboundSa, packet: &mut Packet, meta: &mut Meta, identification: u16) -> Option<()> {
    let traffic_class = mark::outer(meta.traffic_class, sa.dscp, sa.ecn);
    let (next_header, dont_fragment) = match meta.flow.version {
        IpVersion::V4 => (NEXT_IPV4, packet.data().get(6)? & 0x40 != 0),
        IpVersion::V6 => (NEXT_IPV6, true),
    };
    let dont_fragment = match sa.df {
        DfMark::Copy => dont_fragment,
        DfMark::Set => true,
        DfMark::Clear => false,
    };
    let padding = Trailer::padding(packet.len(), usize::from(sa.block));
    Trailer::write(packet.push_back(padding + TRAILER_LEN)?, next_header);
    packet.push_back(usize::from(sa.icv_len))?;
    packet.push_front(usize::from(sa.iv_len))?;
    #[expect(clippy::cast_possible_truncation, reason = "the low half goes on the wire")]
    let header = esp::Header { spi: sa.spi, sequence: meta.sequence as u32 };
    packet.push_front(esp::HEADER_LEN)?.copy_from_slice(&header.to_bytes());
    let protocol = natt::push(sa, packet)?;
    push_ip(sa, packet, protocol, traffic_class, dont_fragment, identification)?;
    meta.flow = outer_flow(sa, protocol);
    meta.traffic_class = traffic_class;
    meta.fragment = Fragment::Whole;
    meta.l4 = u16::try_from(sa.front_len() - esp::HEADER_LEN - usize::from(sa.iv_len)).ok()?;
    Some(())
}

#[inline]
fn push_ip(
    sa: &OutboundSa,
    packet: &mut Packet,
    protocol: u8,
    traffic_class: u8,
    dont_fragment: bool,
    identification: u16,
) -> Option<()> {
    let payload_len = u16::try_from(packet.len()).ok()?;
    match sa.version {
        IpVersion::V4 => {
            #[expect(clippy::cast_possible_truncation, reason = "the SA's addresses are IPv4")]
            let octets = |address: u128| (address as u32).to_be_bytes();
            let header = ipv4::Header {
                source: octets(sa.local),
                destination: octets(sa.remote),
                protocol,
                traffic_class,
                ttl: TTL,
                // An atomic datagram needs no identification (RFC 6864 §4.1).
                identification: if dont_fragment { 0 } else { identification },
                dont_fragment,
                total_len: payload_len.checked_add(20)?,
            };
            packet.push_front(ipv4::HEADER_LEN)?.copy_from_slice(&header.to_bytes());
        }
        IpVersion::V6 => {
            let header = ipv6::Header {
                source: sa.local.to_be_bytes(),
                destination: sa.remote.to_be_bytes(),
                next_header: protocol,
                traffic_class,
                flow_label: sa.flow_label,
                hop_limit: TTL,
                payload_len,
            };
            packet.push_front(ipv6::HEADER_LEN)?.copy_from_slice(&header.to_bytes());
        }
    }
    Some(())
}

#[inline]
fn outer_flow(sa: &OutboundSa, protocol: u8) -> Flow {
    let mut flow = Flow::between(sa.version, sa.local, sa.remote, protocol);
    if protocol == flow::UDP
        && let Some((local, remote)) = sa.encap
    {
        flow.source_port = local;
        flow.destination_port = remote;
        flow.has_ports = true;
    }
    flow
}
