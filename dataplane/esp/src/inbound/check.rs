//! Is the decrypted packet one that its SA may carry, and policy wants it to (RFC 4301 §5.2, step 4)?

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::{DropReason, SaIndex};
use pollux_packet::{Flow, IpVersion, Meta, Packet, ipv4, parse};

use crate::engine::Engine;
use crate::policy::Match;
use crate::sa::place;

/// Reads the inner headers and refuses what they do not allow. Octets behind the inner packet (padding for
/// traffic flow confidentiality) are cut off. The outer traffic class stays in `Meta::traffic_class`.
#[inline]
pub(crate) fn check(packet: &mut Packet, meta: &mut Meta, version: IpVersion) -> Result<(), DropReason> {
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
    Ok(())
}

/// Whether policy gives the SA authority over packets of `flow`, and its selectors accept them.
///
/// Selectors alone are not enough: those of an SA are a product of all its sides, which is more than the policies
/// that share its reqid say, and an earlier policy may give a part of it to another SA.
#[cold]
pub(crate) fn authority(engine: &Engine, sa: SaIndex, flow: &Flow) -> Result<(), DropReason> {
    if !engine.sas.inbound.selectors.accepts_arriving(place(sa), flow) {
        return Err(mismatch(engine, sa));
    }
    let reqid = engine.sas.inbound.record(sa).map(|record| record.reqid);
    // SAs come straight from control, policies by the housekeeper: until a list names the reqid, the selectors
    // that were negotiated are all there is to judge by.
    let is_named = reqid.is_some_and(|reqid| engine.policies.names(reqid));
    match engine.policies.arriving(flow) {
        Match::Entry(entry) | Match::Undecided(entry) if entry.action == PolicyAction::Discard => {
            Err(DropReason::InPolicyDiscard)
        }
        _ if !is_named => Ok(()),
        Match::Entry(entry) | Match::Undecided(entry) if reqid == entry.action.reqid() => Ok(()),
        Match::Undecided(_) => Err(DropReason::FragmentPorts),
        Match::Entry(_) | Match::None => Err(mismatch(engine, sa)),
    }
}

fn mismatch(engine: &Engine, sa: SaIndex) -> DropReason {
    if let Some(counters) = engine.sa_counters.row(Direction::Inbound, sa) {
        counters.selector_errors.add(1);
    }
    DropReason::SelectorMismatch
}
