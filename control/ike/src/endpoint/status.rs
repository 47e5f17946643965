//! What the operator sees of the IKE SAs at one moment.

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use super::Endpoint;
use crate::event::ChildUp;
use crate::identity::Identity;
use crate::message::IkeSpi;
use crate::sa::{ChildSa, DirectionState, IkeSa, IkeSaId, Phase, State, Timer};
use crate::time::Instant;

/// One IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeStatus {
    /// Our name for it.
    pub ike: IkeSaId,
    /// Connection; `None` for a peer that has not said who it is.
    pub connection: Option<Arc<str>>,
    /// `CONNECTING`, `ESTABLISHED`, `REKEYED` or `DELETING`, as swanctl has it.
    pub state: &'static str,
    /// Whether we began it.
    pub initiator: bool,
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our identity, once it is told.
    pub local_id: Option<Identity>,
    /// The peer's identity, once it is authenticated.
    pub remote_id: Option<Identity>,
    /// The chosen proposal, as swanctl users write it.
    pub proposal: Option<String>,
    /// Age since it was established.
    pub age: Option<Duration>,
    /// Time to its rekey.
    pub rekey_in: Option<Duration>,
    /// Child SAs.
    pub children: Vec<ChildStatus>,
}

/// One Child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// What was agreed on.
    pub sa: ChildUp,
    /// `INSTALLING`, `INSTALLED`, `REKEYED` or `DELETING`, as swanctl has it.
    pub state: &'static str,
    /// Whether the outbound half is in use.
    pub outbound: bool,
    /// Time to its rekey.
    pub rekey_in: Option<Duration>,
    /// Time to its end.
    pub expires_in: Option<Duration>,
}

impl Endpoint {
    /// All IKE SAs, for `list-sas`.
    pub fn status(&self, now: Instant) -> Vec<IkeStatus> {
        self.sas.values().filter_map(|sa| of_ike(sa, now)).collect()
    }
}

fn of_ike(sa: &IkeSa, now: Instant) -> Option<IkeStatus> {
    let channel = &sa.channel;
    let (connection, state, established) = match &sa.state {
        State::ExpectInitReply(expect) => (Some(expect.wanted().0.name.clone()), "CONNECTING", None),
        State::ExpectAuthReply(expect) => (Some(expect.connection().name.clone()), "CONNECTING", None),
        State::ExpectAuth(_) => (None, "CONNECTING", None),
        State::ExpectAuthInstalled(waiting) => (Some(waiting.connection().clone()), "CONNECTING", None),
        State::Established(established) => {
            let state = match (established.successor, established.closing) {
                (Some(_), _) => "REKEYED",
                (None, Some(_)) => "DELETING",
                (None, None) if established.redundant => "REKEYED",
                (None, None) => "ESTABLISHED",
            };
            (Some(established.peer.connection.name.clone()), state, Some(established))
        }
        State::ExpectFarewellReply(_) | State::Closed | State::Gone => return None,
    };
    let left = |at: Instant| at.since(now);
    Some(IkeStatus {
        ike: channel.id,
        connection,
        state,
        initiator: channel.initiator,
        spi_i: channel.spi_i,
        spi_r: channel.spi_r,
        local: channel.path.local,
        remote: channel.path.remote,
        local_id: established.map(|established| established.peer.local_id.clone()),
        remote_id: established.map(|established| established.peer.remote_id.clone()),
        proposal: established.map(|established| established.peer.proposal.clone()),
        age: established.map(|established| now.since(established.since)),
        rekey_in: channel.timers.at(Timer::IkeRekey).map(left),
        children: established.map_or_else(Vec::new, |established| {
            established.children.iter().map(|(_, child)| of_child(child, channel.id, now)).collect()
        }),
    })
}

fn of_child(child: &ChildSa, ike: IkeSaId, now: Instant) -> ChildStatus {
    let state = match (child.phase, child.replaced_by) {
        (Phase::Opening, _) => "INSTALLING",
        (Phase::Up, None) => "INSTALLED",
        (Phase::Up, Some(_)) | (Phase::Lingering { .. }, _) => "REKEYED",
        (Phase::Deleting, _) => "DELETING",
    };
    ChildStatus {
        sa: child.summary(ike),
        state,
        outbound: matches!(child.outbound.state, DirectionState::Installed),
        rekey_in: child.rekey_at.map(|at| at.since(now)),
        expires_in: child.expire_at.map(|at| at.since(now)),
    }
}
