//! Is the decrypted packet one that its SA may carry (RFC 4301 §5.2, step 4)?

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::{DropReason, SaIndex};
use pollux_packet::{Flow, IpVersion, Meta, Packet, ipv4, parse};

use crate::engine::Engine;
use crate::policy::Match;
use crate::sa::place;

/// Reads the inner headers and refuses what they do not allow. Octets behind the inner packet (padding for
/// traffic flow confidentiality) are cut off. The outer traffic class stays in `Meta::traffic_class`.
#[inline]
pub(crate) fn check(
    engine: &Engine,
    packet: &mut Packet,
    meta: &mut Meta,
    version: IpVersion,
) -> Result<(), DropReason> {
    let parsed = parse::ip(packet.data(), &mut meta.flow).filter(|_| meta.flow.version == version);
    let parsed = parsed.ok_or(DropReason::InnerMalformed)?;
    // Whoever forwards it renews the checksum with the TTL, and would vouch for a damaged header.
    if version == IpVersion::V4 && !ipv4::checksum_holds(packet.data()) {
        return Err(DropReason::InnerMalformed);
    }
    packet.truncate(parsed.total_len);
    meta.fragment = parsed.fragment;
    // An IP header with all its extensions is shorter than the frame that it came in.
    meta.l4 = u16::try_from(parsed.l4).unwrap_or(u16::MAX);
    refusal(engine, meta.sa, &meta.flow).map_or(Ok(()), Err)
}

/// Why the SA may not carry a packet of `flow`, if so.
#[inline]
fn refusal(engine: &Engine, sa: SaIndex, flow: &Flow) -> Option<DropReason> {
    if !engine.sas.inbound.selectors.accepts_arriving(place(sa), flow) {
        if let Some(counters) = engine.sa_counters.row(Direction::Inbound, sa) {
            counters.selector_errors.add(1);
        }
        return Some(DropReason::SelectorMismatch);
    }
    if engine.policies.inbound_discards
        && let Match::Entry(entry) | Match::Undecided(entry) = engine.policies.inbound.arriving(flow)
        && entry.action == PolicyAction::Discard
    {
        return Some(DropReason::InPolicyDiscard);
    }
    None
}
