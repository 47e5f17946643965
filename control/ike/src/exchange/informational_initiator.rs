//! INFORMATIONAL as initiator: DELETE, liveness, and the last word of a failed handshake (RFC 7296 §1.4).

use pollux_abi::{SaId, Spi};

use super::Ours;
use crate::endpoint::{DATA_PLANE_DEADLINE, Turn};
use crate::error::IkeError;
use crate::event::DownReason;
use crate::message::{ExchangeType, Notify, NotifyType};
use crate::sa::{Channel, Established, Phase, State, Task};

/// We asked the peer to delete a Child SA.
#[derive(Debug)]
pub(crate) struct ExpectDeleteReply {
    child: SaId,
}

/// We asked the peer to delete the IKE SA.
#[derive(Debug)]
pub(crate) struct ExpectIkeDeleteReply {
    reason: DownReason,
}

/// We asked for any answer at all.
#[derive(Debug)]
pub(crate) struct ExpectProbeReply;

/// The handshake failed, and we told the peer why.
#[derive(Debug)]
pub(crate) struct ExpectFarewellReply;

impl ExpectDeleteReply {
    /// The peer has deleted it, whether its answer says so or both of us asked at once (RFC 7296 §1.4.1).
    pub(crate) fn on_reply(self, established: &mut Established, channel: &mut Channel, turn: &mut Turn<'_>) {
        established.forget_child(channel, turn, self.child);
    }

    pub(crate) const fn child(&self) -> SaId {
        self.child
    }
}

impl ExpectIkeDeleteReply {
    pub(crate) fn on_reply(self, established: &mut Established) {
        established.finished = Some(self.reason);
    }
}

/// Asks the peer to delete a Child SA, if it is still there.
pub(crate) fn delete_child(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    key: SaId,
) -> Result<Option<Ours>, IkeError> {
    let Some(child) = established.children.get_mut(key) else { return Ok(None) };
    match child.phase {
        Phase::Lingering { .. } => return Ok(None),
        // The peer may wait for our answer, which tells it what there is to delete.
        Phase::Opening => {
            established.tasks.push_later(turn.now + DATA_PLANE_DEADLINE, Task::DeleteChild(key));
            return Ok(None);
        }
        Phase::Up | Phase::Deleting => {}
    }
    child.phase = Phase::Deleting;
    let spi = child.inbound.spi;
    channel.request(turn, ExchangeType::Informational, |writer| {
        writer.delete_esp(&[spi]);
    })?;
    Ok(Some(Ours::DeleteChild(ExpectDeleteReply { child: key })))
}

/// Asks the peer to delete a Child SA that we could not make sense of.
pub(crate) fn release(
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    spi: Spi,
) -> Result<Option<Ours>, IkeError> {
    channel.request(turn, ExchangeType::Informational, |writer| {
        writer.delete_esp(&[spi]);
    })?;
    Ok(Some(Ours::Probe(ExpectProbeReply)))
}

/// Asks the peer to delete the IKE SA.
pub(crate) fn delete_ike(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    reason: DownReason,
) -> Result<Option<Ours>, IkeError> {
    established.closing = Some(reason);
    channel.request(turn, ExchangeType::Informational, |writer| {
        writer.delete_ike();
    })?;
    Ok(Some(Ours::DeleteIke(ExpectIkeDeleteReply { reason })))
}

/// Asks whether the peer lives (RFC 7296 §2.4).
pub(crate) fn probe(channel: &mut Channel, turn: &mut Turn<'_>) -> Result<Option<Ours>, IkeError> {
    channel.request(turn, ExchangeType::Informational, |_| {})?;
    Ok(Some(Ours::Probe(ExpectProbeReply)))
}

/// Tells a responder that it is not who it should be, and forgets it (RFC 7296 §2.21.2).
pub(crate) fn auth_failure_delete(channel: &mut Channel, turn: &mut Turn<'_>, notify: NotifyType) -> State {
    let told = channel.request(turn, ExchangeType::Informational, |writer| {
        writer.notify(Notify::new(notify, &[]));
    });
    match told {
        Ok(()) => State::ExpectFarewellReply(ExpectFarewellReply),
        Err(_) => State::Gone,
    }
}
