//! CREATE_CHILD_SA for a new IKE SA, as initiator (RFC 7296 §1.3.2, §2.18).

use super::{Ours, nonce, required};
use crate::crypto::{KeMethod, KeyExchange};
use crate::endpoint::{Effect, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::message::{ExchangeType, IkeSpi, Ke, NotifyType, Payloads};
use crate::negotiate::{proposal, syntax};
use crate::sa::keys::{Contributions, Seed, grow};
use crate::sa::{
    Channel, Established, IkeSa, IkeSaId, LAST_WORDS, Lowest, Phase, State, Task, Timer, lowest_nonce,
};

/// We asked for a new IKE SA.
pub(crate) struct ExpectIkeReply {
    spi: IkeSpi,
    nonce: [u8; 32],
    ke: Box<dyn KeyExchange>,
    /// The IKE SA that the peer's rekey at the same time made, and the lowest nonce of that exchange.
    collision: Option<(IkeSaId, Lowest)>,
    method_changed: bool,
}

/// Asks for a new IKE SA in place of this one.
pub(crate) fn begin(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
) -> Result<Option<Ours>, IkeError> {
    if established.successor.is_some() || established.closing.is_some() {
        return Ok(None);
    }
    // Child SAs that the data plane or the peer is at work on move badly: a moment later they do not.
    let moving = established.theirs.is_some()
        || established.children.iter().any(|(_, child)| child.phase == Phase::Opening);
    if moving {
        return Err(IkeError::TemporaryFailure { what: "a Child SA is being made" });
    }
    ask(established, channel, turn, None)
}

fn ask(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    method: Option<KeMethod>,
) -> Result<Option<Ours>, IkeError> {
    let proposals = established.peer.connection.proposals.clone();
    let method_changed = method.is_some();
    let provider = turn.shared.provider.clone();
    let ke = provider.start_ke(method.unwrap_or(established.suite.ke), turn.rng)?;
    let spi = new_spi(turn);
    let nonce = nonce(turn.rng);
    channel.request(turn, ExchangeType::CreateChildSa, |writer| {
        writer.sa(&proposal::offer(&proposals, &spi.to_be_bytes()));
        writer.nonce(&nonce);
        writer.ke(Ke { method: ke.method().id(), public: ke.public() });
    })?;
    Ok(Some(Ours::RekeyIke(Box::new(ExpectIkeReply { spi, nonce, ke, collision: None, method_changed }))))
}

/// An SPI of ours for an IKE SA: random, and never zero.
pub(crate) fn new_spi(turn: &mut Turn<'_>) -> IkeSpi {
    let mut octets = turn.random::<8>();
    octets[0] |= 1;
    IkeSpi::from_be_bytes(octets)
}

impl ExpectIkeReply {
    /// The peer rekeys the IKE SA too, and we have made `theirs` for it.
    pub(crate) fn collided(&mut self, theirs: IkeSaId, lowest: Lowest) {
        self.collision = Some((theirs, lowest));
    }

    /// What the peer's rekey made.
    pub(crate) fn collided_with(&self) -> Option<IkeSaId> {
        self.collision.as_ref().map(|(theirs, _)| *theirs)
    }

    /// The response came.
    pub(crate) fn on_reply(
        self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) {
        let collision = self.collision.clone();
        let refused = match payloads.error() {
            Some(notify) => {
                let wanted = notify.data_u16().and_then(KeMethod::from_id);
                let offered =
                    |method: &KeMethod| proposal::offers_ke(&established.peer.connection.proposals, *method);
                let wanted = wanted.filter(offered);
                if let (NotifyType::InvalidKePayload, false, Some(method), None) =
                    (notify.kind, self.method_changed, wanted, &collision)
                {
                    match ask(established, channel, turn, Some(method)) {
                        Ok(ours) => established.ours = ours,
                        Err(error) => established.on_refused(channel, turn, error, Task::RekeyIke),
                    }
                    return;
                }
                let name = &established.peer.connection.name;
                Some(IkeError::PeerRefused {
                    notify: notify.kind,
                    offered: syntax::describe(&established.peer.connection.proposals),
                    key: format!("connection.{name}.proposals"),
                })
            }
            None => self.accept(established, channel, turn, payloads).err(),
        };
        let Some(error) = refused else { return };
        if let Some((theirs, _)) = collision {
            // The peer's own rekey went through: that one takes our place.
            established.transfer_to(turn, theirs);
            channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
            established.tell_refused(channel, turn, error);
        } else {
            established.on_refused(channel, turn, error, Task::RekeyIke);
        }
    }

    fn accept(
        self,
        established: &mut Established,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        payloads: &Payloads<'_>,
    ) -> Result<(), IkeError> {
        let Self { spi, nonce, ke, collision, .. } = self;
        let sa = required(payloads.sa.as_ref(), "a reply without SA")?;
        let peer_nonce = required(payloads.nonce, "a reply without nonce")?;
        let theirs = required(payloads.ke, "a reply without key exchange")?;
        let chosen = proposal::accept_ike(&established.peer.connection.proposals, sa, 8)
            .ok_or(IkeError::PeerMisbehaved { what: "it chose an IKE proposal that was not offered" })?;
        if chosen.agreement.ke != ke.method() || theirs.method != ke.method().id() {
            return Err(IkeError::PeerMisbehaved {
                what: "a reply whose key exchange does not fit its proposal",
            });
        }
        let peer_spi = chosen.spi.as_slice().try_into().map_or(IkeSpi::ZERO, IkeSpi::from_be_bytes);
        if peer_spi.is_zero() {
            return Err(IkeError::PeerMisbehaved { what: "an SPI of zero" });
        }
        let shared = ke.finish(theirs.public)?;
        let from = Contributions {
            shared: &shared,
            nonce_i: &nonce,
            nonce_r: peer_nonce,
            spi_i: spi,
            spi_r: peer_spi,
        };
        let mut new =
            successor(established, channel, turn, &chosen.transforms, chosen.agreement, from, true)?;
        let new_id = new.channel.id;
        let loses =
            matches!(&collision, Some((_, lowest)) if lowest_nonce(&nonce, peer_nonce).loses_to(lowest));
        match collision {
            Some((theirs, _)) if loses => {
                // Ours is the superfluous one: whoever made it deletes it (RFC 7296 §2.8.2).
                if let State::Established(new) = &mut new.state {
                    new.tasks.push(Task::DeleteIke(DownReason::Replaced));
                    new.closing = Some(DownReason::Replaced);
                }
                turn.effect(Effect::Adopt(Box::new(new)));
                established.transfer_to(turn, theirs);
                channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
                return Ok(());
            }
            Some((theirs, _)) => turn.effect(Effect::Redundant(theirs)),
            None => {}
        }
        if let State::Established(state) = &new.state {
            turn.event(Event::IkeRekeyed { old: channel.id, new: state.summary(&new.channel) });
        }
        turn.effect(Effect::Adopt(Box::new(new)));
        established.transfer_to(turn, new_id);
        established.tasks.push(Task::DeleteIke(DownReason::Replaced));
        channel.timers.set(Timer::IkeExpire, turn.now + LAST_WORDS);
        Ok(())
    }
}

/// The IKE SA that a rekey makes: same peer, same path, new keys, message ids from zero.
pub(crate) fn successor(
    established: &Established,
    channel: &Channel,
    turn: &mut Turn<'_>,
    transforms: &[crate::message::Transform],
    suite: crate::negotiate::IkeAgreement,
    from: Contributions<'_>,
    initiator: bool,
) -> Result<IkeSa, IkeError> {
    let provider = turn.shared.provider.clone();
    let mut log = None;
    let mut keep = |keys| log = Some(keys);
    let wanted = turn.shared.config.log_keys;
    let (keys, protect) = grow(
        &*provider,
        suite,
        Seed::Rekey(&established.keys),
        from,
        initiator,
        if wanted { Some(&mut keep) } else { None },
    )?;
    if let Some(keys) = log {
        turn.event(Event::Keys(keys));
    }
    let id = turn.next_ike_id();
    let mut new = Channel::new(id, (from.spi_i, from.spi_r), initiator, channel.path, turn.now);
    new.protect = Some(protect);
    let mut peer = established.peer.clone();
    peer.proposal = super::init_initiator::describe(transforms);
    let state = Established::new(turn.now, peer, keys, suite);
    state.start_clocks(&mut new, turn);
    Ok(IkeSa::new(new, State::Established(Box::new(state))))
}
