//! Everything around the inner packet but the cipher's part: outer IP header, UDP, SPI, number, padding.

use pollux_abi::DropReason;
use pollux_abi::dscp::DfMark;
use pollux_packet::esp::{self, TRAILER_LEN, Trailer};
use pollux_packet::{Fragment, IpVersion, Meta, Packet};

use crate::engine::Engine;
use crate::mark;
use crate::sa::{Marks, OutboundSa, place};

/// Next header of a tunnel's IPv4 packet.
const NEXT_IPV4: u8 = 4;
/// Next header of a tunnel's IPv6 packet.
const NEXT_IPV6: u8 = 41;

/// Lays a packet out as ESP with its outer headers; IV and ICV are room for the cipher. From here on, `Meta` is
/// of the outer packet, and `Meta::l4` is where the SPI begins. False, and dropped, without room.
#[inline]
pub(crate) fn encapsulate(engine: &mut Engine, packet: &mut Packet, meta: &mut Meta) -> bool {
    let identification = engine.next_identification;
    engine.next_identification = identification.wrapping_add(1);
    let done = one(&engine.sas.outbound.hot[place(meta.sa)], packet, meta, identification).is_some();
    if !done {
        // The room was measured before; frames do not shrink.
        meta.drop_for(DropReason::NoHeadroom);
    }
    done
}

#[inline]
fn one(sa: &OutboundSa, packet: &mut Packet, meta: &mut Meta, identification: u16) -> Option<()> {
    let (next_header, inner_df) = match meta.flow.version {
        IpVersion::V4 => (NEXT_IPV4, packet.data().get(6)? & 0x40 != 0),
        IpVersion::V6 => (NEXT_IPV6, true),
    };
    let dont_fragment = match sa.df {
        DfMark::Copy => inner_df,
        DfMark::Set => true,
        DfMark::Clear => false,
    };
    let traffic_class = mark::outer(meta.traffic_class, sa.dscp, sa.ecn);
    let padding = Trailer::padding(packet.len(), usize::from(sa.block));
    Trailer::write(packet.push_back(padding + TRAILER_LEN)?, next_header);
    packet.push_back(usize::from(sa.icv_len))?;
    let front_len = sa.front_len();
    let total_len = u16::try_from(packet.len() + front_len).ok()?;
    let template = packet.push_front(front_len)?;
    sa.template.write(template, total_len, Marks { traffic_class, dont_fragment, identification })?;
    let l4 = sa.template.l4();
    #[expect(clippy::cast_possible_truncation, reason = "the low half goes on the wire")]
    let sequence = (meta.sequence as u32).to_be_bytes();
    template.get_mut(l4 + 4..l4 + esp::HEADER_LEN)?.copy_from_slice(&sequence);
    meta.flow = sa.outer;
    meta.traffic_class = traffic_class;
    meta.fragment = Fragment::Whole;
    meta.l4 = u16::try_from(l4).ok()?;
    Some(())
}
