//! ICMP errors to senders inside, built in the frame of the packet that they are about.

use pollux_abi::DropReason;
use pollux_packet::{Class, Flow, Fragment, IpVersion, Meta, Packet, Verdict, flow, icmp, ipv4, ipv6};

use crate::engine::Engine;

/// Octets of an ICMP error with its IPv4 header, at the most (RFC 1812 §4.3.2.3).
const V4_LEN_MAX: usize = 576;
/// Octets of an ICMPv6 error with its IPv6 header, at the most (RFC 4443 §2.4).
const V6_LEN_MAX: usize = 1280;
/// Internetwork control, as hosts mark their own errors (RFC 1812 §4.3.2.5).
const TRAFFIC_CLASS: u8 = 0xc0;
const TTL: u8 = 64;

/// Turns a dropped packet into the error for its sender, verdict `Reply`; `Drop` where no error may be sent.
pub(crate) fn answer(
    engine: &mut Engine,
    now_ns: u64,
    packet: &mut Packet,
    meta: &mut Meta,
    error: icmp::Error,
    reason: DropReason,
) {
    meta.drop_for(reason);
    let source = match meta.flow.version {
        IpVersion::V4 => engine.error_source_v4,
        IpVersion::V6 => engine.error_source_v6,
    };
    let Some(source) = source else { return };
    if may_answer(packet, meta) && engine.errors.pass(now_ns) && build(packet, meta, error, source).is_some()
    {
        meta.verdict = Verdict::Reply(reason);
        engine.counters.icmp_errors.add(1);
    }
}

/// Whether an error may be sent about a packet at all (RFC 1122 §3.2.2, RFC 4443 §2.4 e).
fn may_answer(packet: &Packet, meta: &Meta) -> bool {
    let (source, destination) = (meta.flow.source(), meta.flow.destination());
    let one_host = !source.is_unspecified() && !source.is_multicast() && !source.is_loopback();
    let kind = packet.data().get(usize::from(meta.l4)).copied();
    let about_error = match (meta.flow.protocol, kind) {
        (flow::ICMP, Some(kind)) => icmp::is_error_v4(kind),
        (flow::ICMPV6, Some(kind)) => icmp::is_error_v6(kind),
        (flow::ICMP | flow::ICMPV6, None) => true,
        _ => false,
    };
    one_host && !destination.is_multicast() && meta.fragment != Fragment::Later && !about_error
}

fn build(packet: &mut Packet, meta: &mut Meta, error: icmp::Error, source: u128) -> Option<()> {
    let version = meta.flow.version;
    let (protocol, header_len, len_max) = match version {
        IpVersion::V4 => (flow::ICMP, ipv4::HEADER_LEN, V4_LEN_MAX),
        IpVersion::V6 => (flow::ICMPV6, ipv6::HEADER_LEN, V6_LEN_MAX),
    };
    let reply = Flow::between(version, source, meta.flow.source_bits(), protocol);
    packet.truncate(len_max - header_len - icmp::HEADER_LEN);
    let header = match version {
        IpVersion::V4 => error.header_v4(),
        IpVersion::V6 => error.header_v6(),
    };
    packet.push_front(icmp::HEADER_LEN)?.copy_from_slice(&header);
    match version {
        IpVersion::V4 => icmp::write_checksum_v4(packet.data_mut()),
        IpVersion::V6 => icmp::write_checksum_v6(&reply, packet.data_mut()),
    }
    let payload_len = u16::try_from(packet.len()).ok()?;
    push_ip(packet, &reply, payload_len)?;
    let mut reply = reply;
    reply.has_ports = true;
    reply.source_port = u16::from_be_bytes([header[0], header[1]]);
    reply.destination_port = reply.source_port;
    meta.flow = reply;
    meta.class = Class::Plain;
    meta.fragment = Fragment::Whole;
    meta.traffic_class = TRAFFIC_CLASS;
    meta.l4 = u16::try_from(header_len).ok()?;
    Some(())
}

fn push_ip(packet: &mut Packet, reply: &Flow, payload_len: u16) -> Option<()> {
    match reply.version {
        IpVersion::V4 => {
            #[expect(clippy::cast_possible_truncation, reason = "the flow's addresses are IPv4")]
            let octets = |address: u128| (address as u32).to_be_bytes();
            let header = ipv4::Header {
                source: octets(reply.source_bits()),
                destination: octets(reply.destination_bits()),
                protocol: reply.protocol,
                traffic_class: TRAFFIC_CLASS,
                ttl: TTL,
                identification: 0,
                dont_fragment: true,
                total_len: payload_len.checked_add(20)?,
            };
            packet.push_front(ipv4::HEADER_LEN)?.copy_from_slice(&header.to_bytes());
        }
        IpVersion::V6 => {
            let header = ipv6::Header {
                source: reply.source_bits().to_be_bytes(),
                destination: reply.destination_bits().to_be_bytes(),
                next_header: reply.protocol,
                traffic_class: TRAFFIC_CLASS,
                flow_label: 0,
                hop_limit: TTL,
                payload_len,
            };
            packet.push_front(ipv6::HEADER_LEN)?.copy_from_slice(&header.to_bytes());
        }
    }
    Some(())
}
