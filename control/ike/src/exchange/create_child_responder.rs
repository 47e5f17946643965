//! CREATE_CHILD_SA as responder: a further Child SA, or one in place of another (RFC 7296 §1.3.1, §1.3.3).

use pollux_abi::SaId;
use pollux_abi::command::Direction;

use super::child_answer::Answer;
use super::child_offer::KeymatInputs;
use super::{Ours, ke_method, nonce, present, write_refusal};
use crate::crypto::Secret;
use crate::endpoint::Turn;
use crate::error::IkeError;
use crate::message::{ExchangeType, Ke, MessageId, NotifyType, PayloadType, Protocol};
use crate::sa::{Channel, Established, Incoming, Phase};

/// The Child SA is chosen; the answer leaves when its inbound half is installed.
pub(crate) struct ExpectInstalled {
    child: SaId,
    id: MessageId,
    answer: Answer,
    nonce: [u8; 32],
    ke: Option<(u16, Vec<u8>)>,
}

impl Established {
    /// A request for a Child SA or for a new IKE SA.
    pub(crate) fn on_create_child_request(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) {
        let for_ike = incoming.payloads.sa.is_some_and(|sa| {
            sa.proposals().next().is_some_and(|proposal| proposal.protocol == Protocol::Ike)
        });
        let outcome = if for_ike {
            self.on_rekey_ike_request(channel, turn, incoming)
        } else {
            self.on_child_request(channel, turn, incoming)
        };
        if let Err(error) = outcome {
            self.refuse(channel, turn, incoming, error);
        }
    }

    fn on_child_request(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) -> Result<(), IkeError> {
        if let Some(busy) = self.busy() {
            return Err(busy);
        }
        let payloads = incoming.payloads;
        let old = match payloads.notify(NotifyType::RekeySa) {
            Some(notify) => Some(self.to_be_rekeyed(notify.esp_spi().map_or(0, pollux_abi::Spi::get))?),
            None => None,
        };
        if self.children.len() >= turn.shared.config.limits.children_max as usize {
            return Err(IkeError::Limit { what: "Child SAs of one IKE SA" });
        }
        let peer_nonce = present(payloads.nonce, PayloadType::Nonce)?;
        let predecessor = old.and_then(|old| self.children.get(old));
        let answer = Answer::choose(turn, &self.peer, &channel.path, payloads, predecessor, false)?;
        let made = self.make(channel, turn, &answer, incoming, peer_nonce);
        let (mut child, nonce, ke) = match made {
            Ok(made) => made,
            Err(error) => {
                answer.release(turn);
                return Err(error);
            }
        };
        child.replaces = old;
        if let Some(predecessor) = old.and_then(|old| self.children.get(old)) {
            child.reqid = predecessor.reqid;
            child.origin = predecessor.origin.clone();
        }
        child.install(turn, channel.id, Direction::Inbound);
        let lowest = child.lowest.clone();
        let key = self.children.insert(child);
        if let (Some(old), Some(Ours::CreateChild(ours))) = (old, &mut self.ours)
            && ours.rekeys(old)
        {
            ours.collided(key, lowest);
        }
        self.theirs = Some(ExpectInstalled { child: key, id: incoming.id, answer, nonce, ke });
        Ok(())
    }

    /// The Child SA that a REKEY_SA names (RFC 7296 §2.25.1).
    fn to_be_rekeyed(&self, spi: u32) -> Result<SaId, IkeError> {
        let Some(key) = self.children.of_peer_spi(spi) else {
            // The peer may have made it at our request, and its response is still on the way.
            return Err(match &self.ours {
                Some(Ours::CreateChild(_)) => IkeError::TemporaryFailure { what: "a Child SA is being made" },
                _ => IkeError::ChildSaNotFound { spi },
            });
        };
        let child = self.children.get(key).ok_or(IkeError::ChildSaNotFound { spi })?;
        // Our own rekey has its answer already, and the data plane is at work on it.
        let replaced = self.children.iter().any(|(_, other)| {
            other.replaces == Some(key) && other.initiator && other.phase == Phase::Opening
        });
        if replaced || child.phase != Phase::Up || child.replaced_by.is_some() || child.redundant {
            return Err(IkeError::TemporaryFailure { what: "the Child SA is being closed" });
        }
        Ok(key)
    }

    fn make(
        &mut self,
        channel: &Channel,
        turn: &mut Turn<'_>,
        answer: &Answer,
        incoming: Incoming<'_>,
        peer_nonce: &[u8],
    ) -> Result<Made, IkeError> {
        let nonce = nonce(turn.rng);
        let (ke, shared) = match (answer.chosen.agreement.ke, &incoming.payloads.ke) {
            (Some(method), Some(theirs)) if ke_method(theirs) == Some(method) => {
                let provider = turn.shared.provider.clone();
                let (public, shared) = provider.answer_ke(method, theirs.public, turn.rng)?;
                (Some((method.id(), public)), Some(shared))
            }
            _ => (None, None::<Secret>),
        };
        let keymat_inputs =
            KeymatInputs { keys: &self.keys, nonce_i: peer_nonce, nonce_r: &nonce, shared: shared.as_ref() };
        let child = answer.child(turn, &mut self.peer, &channel.path, keymat_inputs)?;
        Ok((child, nonce, ke))
    }
}

type Made = (crate::sa::ChildSa, [u8; 32], Option<(u16, Vec<u8>)>);

impl ExpectInstalled {
    pub(crate) const fn child(&self) -> SaId {
        self.child
    }

    /// The data plane has it: only now may the peer send. Or it has not: roll back and say so.
    pub(crate) fn on_installed(
        self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        result: Result<(), IkeError>,
    ) {
        let sent = match result {
            Ok(()) => {
                let Self { child, id, answer, nonce, ke } = self;
                let sent = channel.respond(turn, ExchangeType::CreateChildSa, id, |writer| {
                    answer.write_sa(writer);
                    writer.nonce(&nonce);
                    if let Some((method, public)) = &ke {
                        writer.ke(Ke { method: *method, public });
                    }
                    answer.write_ts(writer);
                });
                if sent.is_ok() {
                    established.opened(channel, turn, child);
                }
                sent
            }
            Err(error) => {
                let id = self.id;
                let sent = channel.respond(turn, ExchangeType::CreateChildSa, id, |writer| {
                    write_refusal(writer, &error);
                });
                self.abandon(established, turn);
                established.tell_refused(channel, turn, error);
                sent
            }
        };
        established.check(&sent);
    }

    /// It will not be answered.
    pub(crate) fn abandon(self, established: &mut Established, turn: &mut Turn<'_>) {
        if let Some(Ours::CreateChild(ours)) = &mut established.ours {
            ours.no_longer_collided(self.child);
        }
        if let Some(mut child) = established.children.remove(self.child) {
            child.remove_both(turn);
        }
    }
}
