//! What would become of a packet, for the operator.

use pollux_abi::command::{Direction, PolicyAction};
use pollux_abi::{DropReason, PolicyId, SaId, SaIndex, Spi, WorkerId};
use pollux_packet::Flow;

use crate::engine::Engine;
use crate::inbound;
use crate::policy::{Entry, Match};
use crate::sa::{Choice, OutboundSa, place};

/// What would become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It would be encrypted, or (inbound) is expected to arrive so.
    Protected,
    /// It would pass in clear.
    Bypassed,
    /// It would be dropped.
    Dropped(DropReason),
}

/// Which policy and SA a flow meets, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The first matching policy and what it says.
    pub policy: Option<(PolicyId, PolicyAction)>,
    /// The SA that would be used.
    pub sa: Option<ExplainedSa>,
    /// What becomes of the packet.
    pub outcome: Outcome,
}

/// The SA of an [`Explanation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedSa {
    /// Control's name for it.
    pub id: SaId,
    /// Its SPI.
    pub spi: Spi,
    /// Its place in the table.
    pub index: SaIndex,
    /// Who encrypts.
    pub owner: WorkerId,
    /// The longest inner packet that fits its path; `None` on workers that don't own the SA.
    pub inner_mtu: Option<u16>,
}

/// Asks the same tables that packets are sent through.
pub(crate) fn explain(engine: &Engine, flow: &Flow, direction: Direction) -> Explanation {
    match direction {
        Direction::Outbound => leaving(engine, flow),
        Direction::Inbound => arriving(engine, flow),
    }
}

fn leaving(engine: &Engine, flow: &Flow) -> Explanation {
    let dropped = |policy, reason| Explanation { policy, sa: None, outcome: Outcome::Dropped(reason) };
    let entry = match engine.policies.outbound.leaving(flow) {
        Match::None => return dropped(None, DropReason::NoPolicy),
        Match::Undecided(entry) => return dropped(Some(named(entry)), DropReason::FragmentPorts),
        Match::Entry(entry) => entry,
    };
    let policy = Some(named(entry));
    match entry.action {
        PolicyAction::Discard => dropped(policy, DropReason::OutPolicyDiscard),
        PolicyAction::Bypass => Explanation { policy, sa: None, outcome: Outcome::Bypassed },
        PolicyAction::Protect(reqid) => match engine.sas.choose(engine.sas.newest(reqid), flow) {
            Choice::None => dropped(policy, DropReason::NoSa),
            Choice::Own(index) | Choice::Other(index, _) => {
                let sa = outbound_sa(engine, index);
                let refusal = engine.sas.outbound.hot.get(place(index)).and_then(OutboundSa::refusal);
                let outcome = refusal.map_or(Outcome::Protected, Outcome::Dropped);
                Explanation { policy, sa, outcome }
            }
        },
    }
}

/// A packet in clear from outside. Where a policy protects it, it is expected under ESP.
fn arriving(engine: &Engine, flow: &Flow) -> Explanation {
    let policy = match engine.policies.arriving(flow) {
        Match::None => None,
        Match::Entry(entry) | Match::Undecided(entry) => Some(named(entry)),
    };
    let outcome = match inbound::judge(&engine.policies, flow) {
        Ok(()) => Outcome::Bypassed,
        Err(DropReason::ClearForProtected) => Outcome::Protected,
        Err(reason) => Outcome::Dropped(reason),
    };
    Explanation { policy, sa: None, outcome }
}

fn named(entry: &Entry) -> (PolicyId, PolicyAction) {
    (entry.id, entry.action)
}

fn outbound_sa(engine: &Engine, index: SaIndex) -> Option<ExplainedSa> {
    let record = engine.sas.outbound.record(index)?;
    let slot = engine.sas.outbound.slots.get(place(index))?;
    let inner_mtu = engine.sas.outbound.hot.get(place(index)).filter(|_| slot.owned).map(|sa| sa.inner_mtu);
    Some(ExplainedSa { id: record.id, spi: record.spi, index, owner: record.owner, inner_mtu })
}
