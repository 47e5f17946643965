//! CREATE_CHILD_SA as initiator: a further Child SA, or one in place of another (RFC 7296 §1.3.1, §1.3.3).

use std::sync::Arc;

use pollux_abi::command::Direction;
use pollux_abi::{SaId, Spi};

use super::child_offer::{KeymatInputs, Offer};
use super::{Ours, nonce, required};
use crate::config::ChildConfig;
use crate::crypto::{KeMethod, KeyExchange, Secret};
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::event::DownReason;
use crate::message::{ExchangeType, Ke, Notify, NotifyType, Payloads};
use crate::sa::{
    Channel, ChildSa, DirectionState, Established, GIVE_UP_AFTER, Lowest, PacketPair, Phase, Task,
};
use crate::time::Instant;

/// We asked for a Child SA.
pub(crate) struct ExpectChildReply {
    offer: Offer,
    nonce: [u8; 32],
    ke: Option<Box<dyn KeyExchange>>,
    /// The Child SA whose place it shall take.
    rekeys: Option<SaId>,
    /// The packet that wants a further Child SA.
    packet: Option<PacketPair>,
    /// The peer has deleted that Child SA meanwhile, and `close_action` wants another one.
    closed: bool,
    /// The peer's rekey of the same Child SA, and the lowest nonce of that exchange (RFC 7296 §2.8.1).
    collision: Option<(SaId, Lowest)>,
    /// SPIs of the peer's DELETEs that nothing here has: what the response brings may be among them.
    deleted: Vec<Spi>,
    /// Whether the peer has already asked for another key exchange method once.
    method_changed: bool,
}

/// What is asked for.
struct Wanted {
    config: Arc<ChildConfig>,
    rekeys: Option<SaId>,
    packet: Option<PacketPair>,
}

/// Asks for a Child SA.
pub(crate) fn begin(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    config: Arc<ChildConfig>,
) -> Result<Option<Ours>, IkeError> {
    let full = established.children.len() >= turn.shared.config.limits.children_max as usize;
    if full {
        return Err(IkeError::Limit { what: "Child SAs of one IKE SA" });
    }
    if established.has_child(&config) {
        return Ok(None);
    }
    ask(established, channel, turn, Wanted { config, rekeys: None, packet: None }, None)
}

/// Asks for a further Child SA of a child whose others leave a packet out.
pub(crate) fn begin_further(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    config: Arc<ChildConfig>,
    packet: PacketPair,
) -> Result<Option<Ours>, IkeError> {
    if established.children.len() >= turn.shared.config.limits.children_max as usize {
        return Err(IkeError::Limit { what: "Child SAs of one IKE SA" });
    }
    let carried = established.children.iter().any(|(_, child)| {
        child.config.name == config.name
            && matches!(child.phase, Phase::Opening | Phase::Up)
            && child.carries(packet)
    });
    if carried {
        return Ok(None);
    }
    ask(established, channel, turn, Wanted { config, rekeys: None, packet: Some(packet) }, None)
}

/// Asks for a Child SA in place of another one, unless that has a successor or is going already.
pub(crate) fn begin_rekey(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    key: SaId,
) -> Result<Option<Ours>, IkeError> {
    let Some(child) = established.children.get(key) else { return Ok(None) };
    if !child.is_up() || child.replaced_by.is_some() {
        return Ok(None);
    }
    let config = child.config.clone();
    let being_replaced =
        |(_, other): (SaId, &ChildSa)| other.replaces == Some(key) && other.phase == Phase::Opening;
    if established.children.iter().any(being_replaced) {
        // The peer's own rekey of it is in the data plane's hands: see then what became of it.
        established.try_again(turn, Task::RekeyChild(key));
        return Ok(None);
    }
    ask(established, channel, turn, Wanted { config, rekeys: Some(key), packet: None }, None)
}

fn ask(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    Wanted { config, rekeys, packet }: Wanted,
    method: Option<KeMethod>,
) -> Result<Option<Ours>, IkeError> {
    let reqid = match rekeys.and_then(|old| established.children.get(old)) {
        Some(old) => old.reqid,
        None => established.peer.reqid(turn, &config),
    };
    let connection = established.peer.connection.name.clone();
    let mut offer = Offer::new(turn, connection, config, &channel.path, reqid, false)?;
    if let Some(old) = rekeys.and_then(|old| established.children.get(old)) {
        offer = offer.in_place_of(old);
    }
    if packet.is_some_and(|packet| !offer.for_packet(packet)) {
        offer.release(turn);
        return Ok(None);
    }
    let sent = send(established, channel, turn, &offer, rekeys, method);
    match sent {
        Ok((nonce, ke)) => {
            let method_changed = method.is_some();
            let expect = ExpectChildReply {
                offer,
                nonce,
                ke,
                rekeys,
                packet,
                closed: false,
                collision: None,
                deleted: Vec::new(),
                method_changed,
            };
            Ok(Some(Ours::CreateChild(Box::new(expect))))
        }
        Err(error) => {
            offer.release(turn);
            Err(error)
        }
    }
}

type Sent = ([u8; 32], Option<Box<dyn KeyExchange>>);

fn send(
    established: &Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    offer: &Offer,
    rekeys: Option<SaId>,
    method: Option<KeMethod>,
) -> Result<Sent, IkeError> {
    let nonce = nonce(turn.rng);
    let provider = turn.shared.provider.clone();
    let ke = match method.or_else(|| offer.ke_method()) {
        Some(method) => Some(provider.start_ke(method, turn.rng)?),
        None => None,
    };
    let old_spi =
        rekeys.and_then(|old| established.children.get(old)).map(|old| old.inbound.spi.to_be_bytes());
    channel.request(turn, ExchangeType::CreateChildSa, |writer| {
        if let Some(spi) = &old_spi {
            writer.notify(Notify::about_esp(NotifyType::RekeySa, spi));
        }
        offer.write_sa(writer);
        writer.nonce(&nonce);
        if let Some(ke) = &ke {
            writer.ke(Ke { method: ke.method().id(), public: ke.public() });
        }
        offer.write_ts(writer);
    })?;
    Ok((nonce, ke))
}

impl ExpectChildReply {
    /// The child that is wanted.
    pub(crate) const fn config(&self) -> &Arc<ChildConfig> {
        &self.offer.config
    }

    /// Whether it shall take the place of `key`.
    pub(crate) fn rekeys(&self, key: SaId) -> bool {
        self.rekeys == Some(key)
    }

    /// The peer has deleted the Child SA that is being rekeyed: if the rekey fails, `close_action` counts.
    pub(crate) const fn old_is_closed(&mut self) {
        self.closed = true;
    }

    /// The peer rekeys the same Child SA at the same time, and has got `theirs` of us.
    pub(crate) fn collided(&mut self, theirs: SaId, lowest: Lowest) {
        self.collision = Some((theirs, lowest));
    }

    /// What the peer made of the collision did not get through the data plane.
    pub(crate) fn no_longer_collided(&mut self, theirs: SaId) {
        if self.collision.as_ref().is_some_and(|(key, _)| *key == theirs) {
            self.collision = None;
        }
    }

    /// The peer deletes a Child SA that we do not have: it may be the one that its response, still on the way, tells of.
    pub(crate) fn deleted_by_peer(&mut self, spi: Spi) {
        if self.deleted.len() < DELETED_MAX {
            self.deleted.push(spi);
        }
    }

    /// The response will never come.
    pub(crate) fn abandon(self, turn: &mut Turn<'_>) {
        self.offer.release(turn);
    }

    /// The response came.
    pub(crate) fn on_reply(
        mut self: Box<Self>,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) {
        let task = match (self.rekeys, self.packet) {
            (Some(key), _) if !self.closed => Task::RekeyChild(key),
            (None, Some(packet)) => Task::CreateFurther(self.offer.config.clone(), packet),
            _ => Task::CreateChild(self.offer.config.clone()),
        };
        if let Some(notify) = payloads.error() {
            self.offer.release(turn);
            return self.on_error(established, channel, turn, task, notify);
        }
        match self.accept(established, channel, turn, payloads) {
            Ok(()) => {}
            Err(error @ IkeError::TemporaryFailure { .. }) => {
                self.offer.release(turn);
                self.refused(established, channel, turn, error, task);
            }
            Err(error) => {
                // The peer has made it: it must hear that we did not.
                established.tasks.push(Task::Release(self.offer.spi));
                self.offer.release(turn);
                self.refused(established, channel, turn, error, task);
            }
        }
    }

    /// It came to nothing. A rekey whose old Child SA the peer has deleted was also the last that there was of it.
    fn refused(
        &self,
        established: &mut Established,
        channel: &Channel,
        turn: &mut Turn<'_>,
        error: IkeError,
        task: Task,
    ) {
        let anew = self.closed && !error.is_temporary();
        established.on_refused(channel, turn, error, task.clone());
        if anew {
            established.tasks.push(task);
        }
    }

    fn on_error(
        &self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        task: Task,
        notify: Notify<'_>,
    ) {
        match notify.kind {
            NotifyType::InvalidKePayload if !self.method_changed => {
                let wanted =
                    notify.data_u16().and_then(KeMethod::from_id).filter(|&method| self.offer.offers(method));
                if let Some(method) = wanted {
                    let config = self.offer.config.clone();
                    let wanted = Wanted { config, rekeys: self.rekeys, packet: self.packet };
                    match ask(established, channel, turn, wanted, Some(method)) {
                        Ok(Some(Ours::CreateChild(mut again))) => {
                            again.closed = self.closed;
                            established.ours = Some(Ours::CreateChild(again));
                        }
                        Ok(ours) => established.ours = ours,
                        Err(error) => established.on_refused(channel, turn, error, task),
                    }
                    return;
                }
            }
            // It is the peer that asked for it: our response may still be on the way.
            NotifyType::ChildSaNotFound if self.is_untried(established) => {
                let error = IkeError::TemporaryFailure { what: "the peer does not have the Child SA yet" };
                return self.refused(established, channel, turn, error, task);
            }
            NotifyType::ChildSaNotFound => {
                // The peer has lost it: so do we, and ask for a new one (RFC 7296 §2.25).
                if let Some(old) = self.rekeys.filter(|&old| {
                    established.children.get(old).is_some_and(|child| child.replaced_by.is_none())
                }) {
                    let config = self.offer.config.clone();
                    if let Some(child) = established.children.get_mut(old) {
                        child.down = DownReason::Peer;
                    }
                    established.forget_child(channel, turn, old);
                    established.tasks.push(Task::CreateChild(config));
                    return;
                }
            }
            _ => {}
        }
        self.refused(established, channel, turn, self.offer.refused(notify.kind), task);
    }

    /// Whether what we want to rekey was made by the peer's exchange, and nothing has shown yet that the peer has it.
    fn is_untried(&self, established: &Established) -> bool {
        let old = self.rekeys.and_then(|old| established.children.get(old));
        old.is_some_and(|old| !old.initiator && matches!(old.outbound.state, DirectionState::Held(_)))
    }

    fn accept(
        &mut self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<(), IkeError> {
        let peer_nonce = required(payloads.nonce, "a reply without nonce")?;
        let shared = self.shared_secret(payloads)?;
        let keymat_inputs = KeymatInputs {
            keys: &established.keys,
            nonce_i: &self.nonce,
            nonce_r: peer_nonce,
            shared: shared.as_ref(),
        };
        let mut child = self.offer.accept(turn, &channel.path, payloads, keymat_inputs)?;
        if self.deleted.contains(&child.outbound.spi) {
            return Err(IkeError::TemporaryFailure { what: "the peer has deleted the new Child SA already" });
        }
        if let Some(old) = self.rekeys.and_then(|old| established.children.get(old)) {
            self.offer.check_successor(&child, old)?;
            child.origin = old.origin.clone();
        }
        match self.packet {
            Some(packet) => self.offer.check_packet(&child, packet)?,
            None if self.rekeys.is_none() => self.offer.tell_narrowed(turn, &child),
            None => {}
        }
        child.replaces = self.rekeys;
        let lost = self.decide(established, turn.now, &child);
        if lost {
            // The peer's rekey stays, and whoever made the superfluous one deletes it (RFC 7296 §2.8.1).
            child.phase = Phase::Deleting;
            child.down = DownReason::Replaced;
            let key = established.children.insert(child);
            established.tasks.push(Task::DeleteChild(key));
            return Ok(());
        }
        child.install(turn, channel.id, Direction::Inbound);
        let key = established.children.insert(child);
        if !turn.shared.data_plane {
            let error = IkeError::DataPlane { what: "it is down".to_owned() };
            established.child_failed(channel, turn, key, error);
        }
        Ok(())
    }

    /// Whether our new Child SA is the superfluous one. If not, the peer's is.
    fn decide(&self, established: &mut Established, now: Instant, ours: &ChildSa) -> bool {
        let Some((theirs, lowest)) = &self.collision else { return false };
        // The peer decides by the nonces alone, whatever has become of its own one here.
        let lost = ours.lowest.loses_to(lowest);
        if let Some(theirs) = established.children.get_mut(*theirs).filter(|_| !lost) {
            theirs.redundant = true;
            theirs.give_up_at = Some(now + GIVE_UP_AFTER);
        }
        lost
    }

    fn shared_secret(&mut self, payloads: &Payloads<'_>) -> Result<Option<Secret>, IkeError> {
        let (agreement, _) = self.offer.agreement(payloads)?;
        match (agreement.ke, self.ke.take(), &payloads.ke) {
            (None, _, _) => Ok(None),
            (Some(method), Some(ours), Some(theirs))
                if ours.method() == method && theirs.method == method.id() =>
            {
                Ok(Some(ours.finish(theirs.public)?))
            }
            _ => {
                Err(IkeError::PeerMisbehaved { what: "a reply whose key exchange does not fit its proposal" })
            }
        }
    }
}

/// More Child SAs than one response can tell of, even if most of them are none of ours.
const DELETED_MAX: usize = 16;
