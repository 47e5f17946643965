//! Is the decrypted packet one that its SA may carry (RFC 4301 §5.2, step 4)?

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::{DropReason, SaIndex};
use pollux_packet::parse::{self, Parsed};
use pollux_packet::{Burst, IpVersion};

use super::trailer::IPV4;
use crate::engine::Engine;
use crate::live::Live;
use crate::policy::Match;
use crate::sa::place;

/// Reads the inner headers, and drops what they do not allow. Octets behind the inner packet (padding for
/// traffic flow confidentiality) are cut off. The outer traffic class stays in `Meta::traffic_class`.
pub(crate) fn check(engine: &Engine, burst: &mut Burst, live: &mut Live) {
    let (packets, metas) = burst.split_mut();
    for at in live.iter() {
        let (packet, meta) = (&mut packets[at], &mut metas[at]);
        let wanted = if meta.flow.protocol == IPV4 { IpVersion::V4 } else { IpVersion::V6 };
        let parsed = parse::ip(packet.data()).filter(|parsed| parsed.flow.version == wanted);
        let verdict =
            parsed.ok_or(DropReason::InnerMalformed).and_then(|parsed| allowed(engine, meta.sa, parsed));
        match verdict {
            Ok(parsed) => {
                packet.truncate(parsed.total_len);
                meta.flow = parsed.flow;
                meta.fragment = parsed.fragment;
                // An IP header with all its extensions is shorter than the frame that it came in.
                meta.l4 = u16::try_from(parsed.l4).unwrap_or(u16::MAX);
            }
            Err(reason) => {
                meta.drop_for(reason);
                live.remove(at);
            }
        }
    }
}

#[inline]
fn allowed(engine: &Engine, sa: SaIndex, parsed: Parsed) -> Result<Parsed, DropReason> {
    if !engine.sas.inbound.selectors[place(sa)].accepts_arriving(&parsed.flow) {
        if let Some(counters) = engine.sa_counters.row(Direction::Inbound, sa) {
            counters.selector_errors.add(1);
        }
        return Err(DropReason::SelectorMismatch);
    }
    if engine.policies.inbound_discards
        && let Match::Entry(entry) | Match::Undecided(entry) = engine.policies.inbound.arriving(&parsed.flow)
        && entry.action == PolicyAction::Discard
    {
        return Err(DropReason::InPolicyDiscard);
    }
    Ok(parsed)
}
