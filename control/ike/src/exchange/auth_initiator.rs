//! IKE_AUTH as initiator, with a pre-shared key (RFC 7296 §1.2, §2.15).

use std::sync::Arc;

use pollux_abi::command::Direction;

use super::child_offer::{KeymatInputs, Offer};
use super::informational_initiator::auth_failure_delete;
use super::init_initiator::{InitOutcome, failed};
use super::{psk, required};
use crate::config::{ChildConfig, Connection};
use crate::crypto::constant_time_eq;
use crate::endpoint::{Effect, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::identity::{Identity, IdentityPattern};
use crate::message::{Auth, AuthMethod, ExchangeType, Notify, NotifyType, write_id};
use crate::negotiate::IkeAgreement;
use crate::sa::{Channel, Established, Incoming, Keys, Peer, State, Task, Timer};

/// We sent IKE_AUTH.
pub(crate) struct ExpectAuthReply {
    init: InitOutcome,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
    local_id: Identity,
    offer: Option<Offer>,
    /// Children that follow the first one.
    further: Vec<Arc<ChildConfig>>,
    reqids: Vec<(Arc<str>, Arc<pollux_abi::Reqid>)>,
}

/// Sends IKE_AUTH.
pub(crate) fn begin(
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    init: InitOutcome,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
) -> State {
    let (connection, child) = (init.connection.clone(), init.child.clone());
    match request(channel, turn, init, keys, suite, proposal) {
        Ok(expect) => State::ExpectAuthReply(Box::new(expect)),
        Err(error) => {
            tell(channel, turn, &connection, error);
            failed(channel, turn, connection, child);
            State::Gone
        }
    }
}

fn request(
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    init: InitOutcome,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
) -> Result<ExpectAuthReply, IkeError> {
    let connection = init.connection.clone();
    let local_id = connection.local_id.clone().unwrap_or_else(|| Identity::address(channel.path.local.ip()));
    let remote_id = asked_for(&connection, channel);
    let key = psk::find(&turn.shared.config, &connection.name, &local_id, &remote_id)?;
    let provider = turn.shared.provider.clone();
    let mut id = Vec::new();
    write_id(local_id.id_type(), local_id.value(), &mut id);
    let auth = keys.psk_auth(&*provider, true, &key, &init.request, &init.nonce_r, &id)?;
    let (first, further) = wanted_children(&init);
    let mut reqids = Vec::new();
    let offer = match first {
        Some(config) => {
            let reqid = config.reqid.unwrap_or_else(|| {
                let reqid = turn.next_reqid();
                reqids.push((config.name.clone(), Arc::clone(&reqid)));
                *reqid
            });
            Some(Offer::new(turn, connection.name.clone(), config, &channel.path, reqid, true)?)
        }
        None => None,
    };
    let first_contact = turn.shared.is_first_contact(channel.counted);
    let said = matches!(connection.remote_id, IdentityPattern::Exactly(_));
    let sent = channel.request(turn, ExchangeType::IkeAuth, |writer| {
        writer.id_i(local_id.id_type(), local_id.value());
        if first_contact {
            writer.notify(Notify::new(NotifyType::InitialContact, &[]));
        }
        if said {
            writer.id_r(remote_id.id_type(), remote_id.value());
        }
        writer.auth(Auth { method: AuthMethod::SharedKey, data: auth.as_bytes() });
        if let Some(offer) = &offer {
            offer.write_sa(writer);
            offer.write_ts(writer);
        }
    });
    if let Err(error) = sent {
        if let Some(offer) = &offer {
            offer.release(turn);
        }
        return Err(error);
    }
    Ok(ExpectAuthReply { init, keys, suite, proposal, local_id, offer, further, reqids })
}

/// Whom we expect at the other end.
fn asked_for(connection: &Connection, channel: &Channel) -> Identity {
    match &connection.remote_id {
        IdentityPattern::Exactly(identity) => identity.clone(),
        _ => Identity::address(channel.path.remote.ip()),
    }
}

fn wanted_children(init: &InitOutcome) -> (Option<Arc<ChildConfig>>, Vec<Arc<ChildConfig>>) {
    let children = &init.connection.children;
    let mut wanted: Vec<_> = match &init.child {
        Some(name) => children.iter().filter(|child| child.name == *name).cloned().collect(),
        None => children.clone(),
    };
    if wanted.is_empty() {
        return (None, wanted);
    }
    let first = wanted.remove(0);
    (Some(first), wanted)
}

impl ExpectAuthReply {
    pub(crate) const fn connection(&self) -> &Arc<Connection> {
        &self.init.connection
    }

    /// Whom we want to reach.
    pub(crate) fn wanted(&self) -> (Arc<Connection>, Option<Arc<str>>) {
        (self.init.connection.clone(), self.init.child.clone())
    }

    /// The reply will never come; whom we wanted to reach.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) -> (Arc<Connection>, Option<Arc<str>>) {
        if let Some(offer) = self.offer.take() {
            offer.release(turn);
        }
        (self.init.connection.clone(), self.init.child.clone())
    }

    /// The response came. It is from whoever we share keys with; AUTH says who that is.
    pub(crate) fn on_reply(
        mut self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) -> State {
        let refused = incoming.payloads.auth.is_none().then(|| incoming.payloads.error()).flatten();
        // Whatever else the reply says, its sender has no IKE SA any more (RFC 7296 §2.21.3).
        let refused = incoming.payloads.notify(NotifyType::InvalidSyntax).or(refused);
        if let Some(notify) = refused {
            let error = self.refused(notify.kind);
            tell(channel, turn, &self.init.connection, error);
            let (connection, child) = self.abandon(turn);
            failed(channel, turn, connection, child);
            return State::Gone;
        }
        match self.authenticate(channel, turn, incoming) {
            Ok(remote_id) => self.establish(channel, turn, incoming, remote_id),
            Err(error) => {
                // RFC 7296 §2.21.2 has two notifies for what the initiator finds.
                let malformed = matches!(error, IkeError::Malformed(_));
                let notify = if malformed { error.notify() } else { NotifyType::AuthenticationFailed };
                tell(channel, turn, &self.init.connection, error);
                let (connection, child) = self.abandon(turn);
                failed(channel, turn, connection, child);
                auth_failure_delete(channel, turn, notify)
            }
        }
    }

    fn refused(&self, notify: NotifyType) -> IkeError {
        let name = &self.init.connection.name;
        match (&self.offer, notify) {
            (Some(offer), NotifyType::NoProposalChosen | NotifyType::TsUnacceptable) => offer.refused(notify),
            _ => IkeError::PeerRefused {
                notify,
                offered: format!("to be {}", self.local_id),
                key: format!("connection.{name}.local.id and psk"),
            },
        }
    }

    fn authenticate(
        &self,
        channel: &Channel,
        turn: &Turn<'_>,
        incoming: Incoming<'_>,
    ) -> Result<Identity, IkeError> {
        let id = required(incoming.payloads.id_r, "an IKE_AUTH reply without IDr")?;
        let auth = required(incoming.payloads.auth, "an IKE_AUTH reply without AUTH")?;
        let remote_id = required(Identity::new(id.kind, id.data), "an identity of excessive length")?;
        let connection = &self.init.connection;
        if connection.remote_id.rank(&remote_id).is_none() {
            let (offered, accepted) = (format!("to be {remote_id}"), connection.remote_id.to_string());
            let key = format!("connection.{}.remote.id", connection.name);
            return Err(IkeError::AuthenticationFailed { offered, accepted, key });
        }
        let key = psk::find(&turn.shared.config, &connection.name, &self.local_id, &remote_id)?;
        let expected = self.keys.psk_auth(
            &*turn.shared.provider,
            false,
            &key,
            &self.init.response,
            &self.init.nonce_i,
            id.signed_octets(),
        )?;
        let holds = auth.method == AuthMethod::SharedKey && constant_time_eq(expected.as_bytes(), auth.data);
        if !holds {
            return Err(psk::wrong_auth(&connection.name, &remote_id, auth.method));
        }
        debug_assert!(channel.initiator);
        Ok(remote_id)
    }

    fn establish(
        mut self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
        remote_id: Identity,
    ) -> State {
        let offer = self.offer.take();
        let Self { init, keys, suite, proposal, local_id, further, reqids, .. } = *self;
        let connection = init.connection.clone();
        let peer = Peer { connection: connection.clone(), local_id, remote_id, proposal, reqids };
        let mut established = Established::new(turn.now, peer, keys, suite);
        established.start_clocks(channel, turn);
        turn.event(Event::IkeUp(established.summary(channel)));
        turn.effect(Effect::Reached(connection));
        turn.effect(Effect::Established { ike: channel.id, initial_contact: false });
        channel.timers.stop(Timer::Retransmit);
        if let Some(offer) = offer {
            first_child(&mut established, channel, turn, incoming, &init, &offer);
        }
        for config in further {
            established.tasks.push(Task::CreateChild(config));
        }
        State::Established(Box::new(established))
    }
}

/// The Child SA that came with IKE_AUTH; the IKE SA stays without it (RFC 7296 §1.2).
fn first_child(
    established: &mut Established,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    incoming: Incoming<'_>,
    init: &InitOutcome,
    offer: &Offer,
) {
    let task = Task::CreateChild(offer.config.clone());
    if let Some(notify) = incoming.payloads.error() {
        offer.release(turn);
        established.on_refused(channel, turn, offer.refused(notify.kind), task);
        return;
    }
    let keymat_inputs = KeymatInputs {
        keys: &established.keys,
        nonce_i: &init.nonce_i,
        nonce_r: &init.nonce_r,
        shared: None,
    };
    match offer.accept(turn, &channel.path, incoming.payloads, keymat_inputs) {
        Ok(mut child) => {
            child.down = DownReason::Operator;
            offer.tell_narrowed(turn, &child);
            child.install(turn, channel.id, Direction::Inbound);
            let key = established.children.insert(child);
            if !turn.shared.data_plane {
                let error = IkeError::DataPlane { what: "it is down".to_owned() };
                established.child_failed(channel, turn, key, error);
            }
        }
        Err(error) => {
            established.tasks.push(Task::Release(offer.spi));
            offer.release(turn);
            established.on_refused(channel, turn, error, task);
        }
    }
}

fn tell(channel: &Channel, turn: &mut Turn<'_>, connection: &Connection, error: IkeError) {
    turn.event(Event::Refused {
        ike: Some(channel.id),
        connection: Some(connection.name.clone()),
        remote: channel.path.remote,
        error,
        authenticated: true,
    });
}
