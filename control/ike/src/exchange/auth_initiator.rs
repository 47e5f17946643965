//! IKE_AUTH as initiator, with a pre-shared key (RFC 7296 §1.2, §2.15).

use std::sync::Arc;

use pollux_abi::command::Direction;

use super::child_offer::{Offer, Seasoning};
use super::informational_initiator::farewell;
use super::init_initiator::{Introduced, failed};
use super::{psk, required};
use crate::config::{ChildConfig, Connection};
use crate::crypto::constant_time_eq;
use crate::endpoint::{Effect, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::identity::{Identity, IdentityPattern};
use crate::message::{Auth, AuthMethod, ExchangeType, Notify, NotifyType, write_id};
use crate::negotiate::IkeAgreement;
use crate::sa::{Established, Incoming, Keys, Line, Peer, State, Task, Timer};

/// We sent IKE_AUTH.
pub(crate) struct ExpectAuthReply {
    introduced: Introduced,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
    local_id: Identity,
    offer: Option<Offer>,
    /// Children that follow the first one.
    further: Vec<Arc<ChildConfig>>,
    reqids: Vec<(Arc<str>, pollux_abi::Reqid)>,
}

/// Sends IKE_AUTH.
pub(crate) fn begin(
    line: &mut Line,
    turn: &mut Turn<'_>,
    introduced: Introduced,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
) -> State {
    let (connection, child) = (introduced.connection.clone(), introduced.child.clone());
    match request(line, turn, introduced, keys, suite, proposal) {
        Ok(expect) => State::ExpectAuthReply(Box::new(expect)),
        Err(error) => {
            tell(line, turn, &connection, error);
            failed(line, turn, connection, child);
            State::Gone
        }
    }
}

fn request(
    line: &mut Line,
    turn: &mut Turn<'_>,
    introduced: Introduced,
    keys: Keys,
    suite: IkeAgreement,
    proposal: String,
) -> Result<ExpectAuthReply, IkeError> {
    let connection = introduced.connection.clone();
    let local_id = connection.local_id.clone().unwrap_or_else(|| Identity::address(line.path.local.ip()));
    let remote_id = asked_for(&connection, line);
    let key = psk::find(&turn.shared.config, &connection.name, &local_id, &remote_id)?;
    let provider = turn.shared.provider.clone();
    let mut id = Vec::new();
    write_id(local_id.id_type(), local_id.value(), &mut id);
    let auth = keys.psk_auth(&*provider, true, &key, &introduced.request, &introduced.nonce_r, &id)?;
    let (first, further) = wanted_children(&introduced);
    let mut reqids = Vec::new();
    let offer = match first {
        Some(config) => {
            let reqid = config.reqid.unwrap_or_else(|| {
                let reqid = turn.next_reqid();
                reqids.push((config.name.clone(), reqid));
                reqid
            });
            Some(Offer::new(turn, connection.name.clone(), config, &line.path, reqid, true)?)
        }
        None => None,
    };
    let first_contact = turn.shared.is_first_contact(line.counted);
    let said = matches!(connection.remote_id, IdentityPattern::Exactly(_));
    let sent = line.request(turn, ExchangeType::IkeAuth, |writer| {
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
    Ok(ExpectAuthReply { introduced, keys, suite, proposal, local_id, offer, further, reqids })
}

/// Whom we expect at the other end.
fn asked_for(connection: &Connection, line: &Line) -> Identity {
    match &connection.remote_id {
        IdentityPattern::Exactly(identity) => identity.clone(),
        _ => Identity::address(line.path.remote.ip()),
    }
}

fn wanted_children(introduced: &Introduced) -> (Option<Arc<ChildConfig>>, Vec<Arc<ChildConfig>>) {
    let children = &introduced.connection.children;
    let mut wanted: Vec<_> = match &introduced.child {
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
        &self.introduced.connection
    }

    /// Whom we want to reach.
    pub(crate) fn wanted(&self) -> (Arc<Connection>, Option<Arc<str>>) {
        (self.introduced.connection.clone(), self.introduced.child.clone())
    }

    /// The reply will never come; whom we wanted to reach.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) -> (Arc<Connection>, Option<Arc<str>>) {
        if let Some(offer) = self.offer.take() {
            offer.release(turn);
        }
        (self.introduced.connection.clone(), self.introduced.child.clone())
    }

    /// The response came. It is from whoever we share keys with; AUTH says who that is.
    pub(crate) fn on_reply(
        mut self: Box<Self>,
        line: &mut Line,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) -> State {
        let refused = incoming.payloads.auth.is_none().then(|| incoming.payloads.error()).flatten();
        if let Some(notify) = refused {
            let error = self.refused(notify.kind);
            tell(line, turn, &self.introduced.connection, error);
            let (connection, child) = self.abandon(turn);
            failed(line, turn, connection, child);
            return State::Gone;
        }
        match self.authenticate(line, turn, incoming) {
            Ok(remote_id) => self.establish(line, turn, incoming, remote_id),
            Err(error) => {
                let notify = error.notify();
                tell(line, turn, &self.introduced.connection, error);
                let (connection, child) = self.abandon(turn);
                failed(line, turn, connection, child);
                farewell(line, turn, notify)
            }
        }
    }

    fn refused(&self, notify: NotifyType) -> IkeError {
        let name = &self.introduced.connection.name;
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
        line: &Line,
        turn: &Turn<'_>,
        incoming: Incoming<'_>,
    ) -> Result<Identity, IkeError> {
        let id = required(incoming.payloads.id_r, "an IKE_AUTH reply without IDr")?;
        let auth = required(incoming.payloads.auth, "an IKE_AUTH reply without AUTH")?;
        let remote_id = required(Identity::new(id.kind, id.data), "an identity of excessive length")?;
        let connection = &self.introduced.connection;
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
            &self.introduced.response,
            &self.introduced.nonce_i,
            id.signed_octets(),
        )?;
        let holds = auth.method == AuthMethod::SharedKey && constant_time_eq(expected.as_bytes(), auth.data);
        if !holds {
            return Err(psk::wrong_auth(&connection.name, &remote_id, auth.method));
        }
        debug_assert!(line.initiator);
        Ok(remote_id)
    }

    fn establish(
        mut self: Box<Self>,
        line: &mut Line,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
        remote_id: Identity,
    ) -> State {
        let offer = self.offer.take();
        let Self { introduced, keys, suite, proposal, local_id, further, reqids, .. } = *self;
        let connection = introduced.connection.clone();
        let peer = Peer { connection: connection.clone(), local_id, remote_id, proposal, reqids };
        let mut established = Established::new(turn.now, peer, keys, suite);
        established.start_clocks(line, turn);
        turn.event(Event::IkeUp(established.summary(line)));
        turn.effect(Effect::Reached(connection));
        turn.effect(Effect::Established { ike: line.id, initial_contact: false });
        line.timers.stop(Timer::Retransmit);
        if let Some(offer) = offer {
            first_child(&mut established, line, turn, incoming, &introduced, &offer);
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
    line: &mut Line,
    turn: &mut Turn<'_>,
    incoming: Incoming<'_>,
    introduced: &Introduced,
    offer: &Offer,
) {
    let task = Task::CreateChild(offer.config.clone());
    if let Some(notify) = incoming.payloads.error() {
        offer.release(turn);
        established.on_refused(line, turn, offer.refused(notify.kind), task);
        return;
    }
    let season = Seasoning {
        keys: &established.keys,
        nonce_i: &introduced.nonce_i,
        nonce_r: &introduced.nonce_r,
        shared: None,
    };
    match offer.accept(turn, &line.path, incoming.payloads, season) {
        Ok(mut child) => {
            child.down = DownReason::Operator;
            child.install(turn, line.id, Direction::Inbound);
            let key = established.children.insert(child);
            if !turn.shared.data_plane {
                let error = IkeError::DataPlane { what: "it is down".to_owned() };
                established.child_failed(line, turn, key, error);
            }
        }
        Err(error) => {
            established.tasks.push(Task::Disown(offer.spi));
            offer.release(turn);
            established.on_refused(line, turn, error, task);
        }
    }
}

fn tell(line: &Line, turn: &mut Turn<'_>, connection: &Connection, error: IkeError) {
    turn.event(Event::Refused {
        ike: Some(line.id),
        connection: Some(connection.name.clone()),
        remote: line.path.remote,
        error,
        authenticated: true,
    });
}
