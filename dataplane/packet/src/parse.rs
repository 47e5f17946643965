//! One pass over a burst of received frames: what each packet is, and its flow key.

use pollux_abi::DropReason;

use crate::buf::Packet;
use crate::burst::Burst;
use crate::ethernet::{self, Link};
use crate::flow::{self, Flow, IpVersion};
use crate::hint;
use crate::ipv4::{self, Ipv4};
use crate::ipv6::Ipv6;
use crate::meta::{Class, Fragment, Meta, Role};
use crate::udp::{self, Udp};

/// The UDP port of IKE and ESP behind NATs (RFC 3948).
pub const ENCAP_PORT: u16 = 4500;

/// Classifies Ethernet frames: strips the link header, cuts link padding, fills flow key, class and offsets.
///
/// On the wan side, ESP and ESP in UDP to `encap_port` (4500 as a rule) get their class; everything else,
/// and everything on the other sides, is [`Class::Plain`]. What is no IP frame without a VLAN is dropped as
/// `NotOurs`, what contradicts itself as `Malformed`, an IPv4 header whose checksum is wrong as `HeaderChecksum`.
pub fn classify(burst: &mut Burst, encap_port: u16) {
    for packet in burst.packets() {
        hint::prefetch(packet.data());
    }
    for (packet, meta) in burst.iter_mut() {
        match strip_link(packet) {
            Ok(()) => one(packet, meta, encap_port),
            Err(reason) => meta.drop_for(reason),
        }
    }
}

/// Classifies packets that begin with their IP header, as [`classify`] does frames.
pub fn classify_ip(burst: &mut Burst, encap_port: u16) {
    for packet in burst.packets() {
        hint::prefetch(packet.data());
    }
    for (packet, meta) in burst.iter_mut() {
        one(packet, meta, encap_port);
    }
}

/// What an IP packet says of itself beside its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Octets of header and payload; what follows is padding.
    pub total_len: usize,
    /// Where the transport header begins.
    pub l4: usize,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Whether it is a fragment.
    pub fragment: Fragment,
}

/// Reads the IP packet at the front of `octets` and writes its addresses, protocol and ports to where they are
/// to be; `None`, and anything in `flow`, where it contradicts itself, or is too short for the ports of its
/// protocol.
#[inline]
pub fn ip(octets: &[u8], flow: &mut Flow) -> Option<Parsed> {
    match octets.first()? >> 4 {
        4 => ip_v4(octets, flow),
        6 => ip_v6(octets, flow),
        _ => None,
    }
}

#[inline]
fn ip_v4(octets: &[u8], flow: &mut Flow) -> Option<Parsed> {
    let view = Ipv4::parse(octets)?;
    let fragment = fragment(view.fragment_offset(), view.more_fragments());
    *flow = view.flow();
    fill_ports(flow, fragment, view.payload())?;
    Some(Parsed {
        total_len: view.total_len(),
        l4: view.header_len(),
        traffic_class: view.traffic_class(),
        fragment,
    })
}

#[inline]
fn ip_v6(octets: &[u8], flow: &mut Flow) -> Option<Parsed> {
    let view = Ipv6::parse(octets)?;
    let transport = view.transport()?;
    let fragment = fragment(transport.fragment_offset, transport.more_fragments);
    let payload = octets.get(transport.offset..view.total_len())?;
    *flow = view.flow(transport.protocol);
    fill_ports(flow, fragment, payload)?;
    Some(Parsed {
        total_len: view.total_len(),
        l4: transport.offset,
        traffic_class: view.traffic_class(),
        fragment,
    })
}

#[inline]
const fn fragment(offset: usize, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Fills in the ports. A first fragment too short to hold them would slip past rules about ports
/// (RFC 1858), so that it is as malformed as a whole packet without them.
#[inline]
fn fill_ports(flow: &mut Flow, fragment: Fragment, transport: &[u8]) -> Option<()> {
    if fragment == Fragment::Later || !Flow::protocol_has_ports(flow.protocol) {
        return Some(());
    }
    let [a, b, c, d] = *transport.first_chunk::<4>()?;
    flow.has_ports = true;
    flow.source_port = u16::from_be_bytes([a, b]);
    flow.destination_port = if matches!(flow.protocol, flow::ICMP | flow::ICMPV6) {
        flow.source_port
    } else {
        u16::from_be_bytes([c, d])
    };
    Some(())
}

#[inline]
fn strip_link(packet: &mut Packet) -> Result<(), DropReason> {
    let link = Link::parse(packet.data()).ok_or(DropReason::Malformed)?;
    // The gateway ends no VLANs itself: a tag held inside the frame belongs to somebody else's network.
    if link.in_vlan || !matches!(link.ethertype, ethernet::IPV4 | ethernet::IPV6) {
        return Err(DropReason::NotOurs);
    }
    if packet.pull_front(link.len) { Ok(()) } else { Err(DropReason::Malformed) }
}

#[inline]
fn one(packet: &mut Packet, meta: &mut Meta, encap_port: u16) {
    let Some(parsed) = ip(packet.data(), &mut meta.flow) else {
        meta.drop_for(DropReason::Malformed);
        return;
    };
    if meta.flow.version == IpVersion::V4 && !ipv4::checksum_holds(packet.data()) {
        meta.drop_for(DropReason::HeaderChecksum);
        return;
    }
    packet.truncate(parsed.total_len);
    let Ok(l4) = u16::try_from(parsed.l4) else {
        meta.drop_for(DropReason::Malformed);
        return;
    };
    meta.l4 = l4;
    meta.traffic_class = parsed.traffic_class;
    meta.fragment = parsed.fragment;
    if meta.role == Role::Wan && meta.fragment == Fragment::Whole {
        classify_esp(packet, meta, encap_port);
    }
}

/// Ports of ESP's own datagrams are not checked further here: an SPI of ours decides, whatever port a NAT
/// made of the peer's.
#[inline]
fn classify_esp(packet: &mut Packet, meta: &mut Meta, encap_port: u16) {
    if meta.flow.protocol == flow::ESP {
        meta.class = Class::Esp;
    } else if meta.flow.protocol == flow::UDP && meta.flow.destination_port == encap_port {
        let l4 = usize::from(meta.l4);
        let Some(datagram) = packet.data().get(l4..).and_then(Udp::parse) else { return };
        if datagram.holds_esp() {
            // What an IP packet carries behind its datagram is no part of the ESP packet.
            let end = l4 + udp::HEADER_LEN + datagram.payload().len();
            packet.truncate(end);
            meta.class = Class::EspInUdp;
            #[expect(clippy::cast_possible_truncation, reason = "a UDP header has 8 octets")]
            let header_len = udp::HEADER_LEN as u16;
            meta.l4 += header_len;
        }
    }
}

#[cfg(test)]
mod tests;
