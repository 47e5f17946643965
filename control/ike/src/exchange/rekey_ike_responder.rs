//! CREATE_CHILD_SA for a new IKE SA, as responder (RFC 7296 §1.3.2, §2.18, §2.25.2).

use super::rekey_ike_initiator::{new_spi, successor};
use super::{Ours, ke_method, nonce, present};
use crate::endpoint::{Effect, Turn};
use crate::error::IkeError;
use crate::event::Event;
use crate::message::{ExchangeType, IkeSpi, Ke, PayloadType, Protocol};
use crate::negotiate::{Chosen, IkeAgreement, proposal, syntax};
use crate::sa::keys::Contributions;
use crate::sa::{Channel, Established, Incoming, LAST_WORDS, Phase, State, Timer, lowest_nonce};

impl Established {
    /// The peer asks for a new IKE SA in place of this one.
    pub(crate) fn on_rekey_ike_request(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) -> Result<(), IkeError> {
        self.may_be_rekeyed()?;
        let payloads = incoming.payloads;
        let sa = present(payloads.sa.as_ref(), PayloadType::Sa)?;
        let peer_nonce = present(payloads.nonce, PayloadType::Nonce)?;
        sa.check_numbers()?;
        let sent = payloads.ke;
        let proposals = &self.peer.connection.proposals;
        let key = format!("connection.{}.proposals", self.peer.connection.name);
        let chosen = proposal::choose_ike(proposals, sa, sent.as_ref().and_then(ke_method), 8);
        let spi = |chosen: &Chosen<IkeAgreement>| {
            let spi = chosen.spi.as_slice().try_into().map_or(IkeSpi::ZERO, IkeSpi::from_be_bytes);
            (!spi.is_zero()).then_some(spi)
        };
        let Some((chosen, peer_spi)) = chosen.and_then(|chosen| spi(&chosen).map(|spi| (chosen, spi))) else {
            let (offered, accepted) = (syntax::describe_sa(sa), syntax::describe(proposals));
            return Err(IkeError::NoProposalChosen { offered, accepted, key });
        };
        let suite = chosen.agreement;
        let Some(theirs) = sent.filter(|sent| sent.method == suite.ke.id()) else {
            let offered = sent.map_or(0, |sent| sent.method);
            return Err(IkeError::InvalidKe { offered, accepted: suite.ke.id(), key });
        };
        let provider = turn.shared.provider.clone();
        let (public, shared) = provider.answer_ke(suite.ke, theirs.public, turn.rng)?;
        let (spi, nonce) = (new_spi(turn), nonce(turn.rng));
        let from = Contributions {
            shared: &shared,
            nonce_i: peer_nonce,
            nonce_r: &nonce,
            spi_i: peer_spi,
            spi_r: spi,
        };
        let mut new = successor(self, channel, turn, &chosen.transforms, suite, from, false)?;
        channel.respond(turn, ExchangeType::CreateChildSa, incoming.id, |writer| {
            writer.sa(&[chosen.answer(Protocol::Ike, &spi.to_be_bytes())]);
            writer.nonce(&nonce);
            writer.ke(Ke { method: suite.ke.id(), public: &public });
        })?;
        let new_id = new.channel.id;
        if let State::Established(state) = &new.state {
            turn.event(Event::IkeRekeyed { old: channel.id, new: state.summary(&new.channel) });
        }
        if let Some(Ours::RekeyIke(ours)) = &mut self.ours {
            // Both at once: which one stays is known when our own response comes.
            ours.collided(new_id, lowest_nonce(peer_nonce, &nonce));
            if let State::Established(state) = &mut new.state {
                state.undecided = true;
            }
            turn.effect(Effect::Adopt(Box::new(new)));
        } else {
            turn.effect(Effect::Adopt(Box::new(new)));
            self.transfer_to(turn, new_id);
            channel.timers.stop(Timer::IkeRekey);
            channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
        }
        Ok(())
    }

    /// Not while a Child SA is being made, replaced or closed by us, nor twice (RFC 7296 §2.25.2).
    fn may_be_rekeyed(&self) -> Result<(), IkeError> {
        let collided = matches!(&self.ours, Some(Ours::RekeyIke(ours)) if ours.collided_with().is_some());
        let what = if self.closing.is_some() || self.successor.is_some() || collided {
            "the IKE SA is being closed"
        } else if self.undecided {
            "an earlier rekey of the IKE SA is not decided yet"
        } else if matches!(&self.ours, Some(Ours::CreateChild(_) | Ours::DeleteChild(_))) {
            "a Child SA is being made or closed"
        } else if self.children.iter().any(|(_, child)| child.phase == Phase::Opening) {
            "a Child SA is being made"
        } else {
            return Ok(());
        };
        Err(IkeError::TemporaryFailure { what })
    }
}
