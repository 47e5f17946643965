//! IKE_AUTH as responder, with a pre-shared key (RFC 7296 §1.2, §2.15).

use std::sync::Arc;

use pollux_abi::SaId;
use pollux_abi::command::Direction;

use super::child_answer::Answer;
use super::child_offer::KeymatInputs;
use super::{psk, write_refusal};
use crate::config::Connection;
use crate::crypto::{Secret, constant_time_eq};
use crate::endpoint::{Effect, Turn, matching};
use crate::error::IkeError;
use crate::event::Event;
use crate::identity::Identity;
use crate::message::{Auth, AuthMethod, ExchangeType, Id, Malformed, MessageId, NotifyType, write_id};
use crate::negotiate::IkeAgreement;
use crate::sa::{Channel, Established, Incoming, Keys, Peer, State};
use crate::time::Instant;

/// We answered IKE_SA_INIT.
pub(crate) struct ExpectAuth {
    pub(crate) keys: Keys,
    pub(crate) suite: IkeAgreement,
    /// The chosen proposal as swanctl users write it.
    pub(crate) proposal: String,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    /// Both IKE_SA_INIT messages as they went over the wire: AUTH covers them.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
}

/// The peer is authentic; the answer leaves when the data plane has its Child SA.
pub(crate) struct ExpectAuthInstalled {
    established: Box<Established>,
    child: SaId,
    id: MessageId,
    answer: Answer,
    auth: Secret,
    initial_contact: bool,
}

impl ExpectAuth {
    /// IKE_AUTH came, authentic as to its sender's keys, or an exchange that has no place before it.
    pub(crate) fn on_request(
        self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
    ) -> State {
        if incoming.exchange != ExchangeType::IkeAuth {
            let error = Malformed::Exchange(incoming.exchange).into();
            return refuse(channel, turn, incoming, None, error);
        }
        match self.authenticate(channel, turn, incoming) {
            Ok((connection, local_id, remote_id, auth)) => {
                self.establish(channel, turn, incoming, (connection, local_id, remote_id), auth)
            }
            Err(error) => refuse(channel, turn, incoming, None, error),
        }
    }

    /// Who the peer is, whom it wants, and our own AUTH.
    fn authenticate(
        &self,
        channel: &Channel,
        turn: &Turn<'_>,
        incoming: Incoming<'_>,
    ) -> Result<(Arc<Connection>, Identity, Identity, Secret), IkeError> {
        let id = incoming.payloads.id_i.ok_or_else(|| unknown("nobody, in IKE_AUTH without IDi"))?;
        let remote_id = identity(&id)?;
        let Some(auth) = incoming.payloads.auth else {
            return Err(IkeError::EapWanted { identity: remote_id.to_string(), methods: psk::METHODS });
        };
        let wanted = incoming.payloads.id_r.as_ref().map(identity).transpose()?;
        let connection_index = &turn.shared.config;
        let (connection, local_id) =
            matching(connection_index, &channel.path, &remote_id, wanted.as_ref(), self.suite)?;
        let key = psk::find(connection_index, &connection.name, &local_id, &remote_id)?;
        let provider = &*turn.shared.provider;
        let expected =
            self.keys.psk_auth(provider, true, &key, &self.request, &self.nonce_r, id.signed_octets())?;
        let holds = auth.method == AuthMethod::SharedKey && constant_time_eq(expected.as_bytes(), auth.data);
        if !holds {
            return Err(psk::wrong_auth(&connection.name, &remote_id, auth.method));
        }
        let mut id = Vec::new();
        write_id(local_id.id_type(), local_id.value(), &mut id);
        let ours = self.keys.psk_auth(provider, false, &key, &self.response, &self.nonce_i, &id)?;
        Ok((connection, local_id, remote_id, ours))
    }

    fn establish(
        self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        incoming: Incoming<'_>,
        (connection, local_id, remote_id): (Arc<Connection>, Identity, Identity),
        auth: Secret,
    ) -> State {
        let Self { keys, suite, proposal, nonce_i, nonce_r, .. } = *self;
        channel.path.forced |= connection.encap;
        let peer = Peer { connection, local_id, remote_id, proposal, reqids: Vec::new() };
        let mut established = Box::new(Established::new(turn.now, peer, keys, suite));
        let initial_contact = incoming.payloads.has_notify(NotifyType::InitialContact);
        let chosen = if incoming.payloads.sa.is_none() {
            // Childless, as RFC 6023 has it.
            None
        } else {
            Some(Answer::choose(turn, &established.peer, &channel.path, incoming.payloads, None, true))
        };
        let made = chosen.map(|chosen| {
            let answer = chosen?;
            let keymat_inputs =
                KeymatInputs { keys: &established.keys, nonce_i: &nonce_i, nonce_r: &nonce_r, shared: None };
            match answer.child(turn, &mut established.peer, &channel.path, keymat_inputs) {
                Ok(child) => Ok((answer, child)),
                Err(error) => {
                    answer.release(turn);
                    Err(error)
                }
            }
        });
        match made {
            Some(Ok((answer, mut child))) => {
                child.install(turn, channel.id, Direction::Inbound);
                let child = established.children.insert(child);
                let id = incoming.id;
                State::ExpectAuthInstalled(Box::new(ExpectAuthInstalled {
                    established,
                    child,
                    id,
                    answer,
                    auth,
                    initial_contact,
                }))
            }
            // An IKE_AUTH of bad syntax makes no IKE SA.
            Some(Err(error)) if error.is_fatal() => {
                refuse(channel, turn, incoming, Some(established.peer.connection.name.clone()), error)
            }
            Some(Err(error)) => {
                without_child(established, channel, turn, (incoming.id, &auth, initial_contact), Some(error))
            }
            None => without_child(established, channel, turn, (incoming.id, &auth, initial_contact), None),
        }
    }
}

/// Answers IKE_AUTH with one notify, after which there is no IKE SA (RFC 7296 §2.21.2).
fn refuse(
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    incoming: Incoming<'_>,
    connection: Option<Arc<str>>,
    error: IkeError,
) -> State {
    let sent = channel.respond(turn, incoming.exchange, incoming.id, |writer| write_refusal(writer, &error));
    let (ike, remote) = (Some(channel.id), channel.path.remote);
    turn.event(Event::Refused { ike, connection, remote, error, authenticated: true });
    if sent.is_ok() { State::closed(channel, turn.now) } else { State::Gone }
}

/// An identity of the peer, or one that it asks for.
fn identity(id: &Id<'_>) -> Result<Identity, IkeError> {
    Identity::new(id.kind, id.data).ok_or_else(|| unknown("an identity of excessive length"))
}

fn unknown(offered: &str) -> IkeError {
    let accepted = "an identity of a connection".to_owned();
    let key = "connection.*.remote.id".to_owned();
    IkeError::AuthenticationFailed { offered: offered.to_owned(), accepted, key }
}

impl ExpectAuthInstalled {
    pub(crate) fn connection(&self) -> &Arc<str> {
        &self.established.peer.connection.name
    }

    pub(crate) const fn child(&self) -> SaId {
        self.child
    }

    /// When the data plane must have answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.established.children.deadline()
    }

    /// Treats an answer that is overdue as a refusal.
    pub(crate) fn on_timeout(self: Box<Self>, channel: &mut Channel, turn: &mut Turn<'_>) -> State {
        let overdue = self.established.children.get(self.child).and_then(|child| child.overdue(turn.now));
        match overdue {
            Some(sa) => {
                let what = "no answer within its deadline".to_owned();
                self.on_installed(channel, turn, sa, Err(IkeError::DataPlane { what }))
            }
            None => State::ExpectAuthInstalled(self),
        }
    }

    /// The data plane has the Child SA: the answer leaves. Or it has not: the IKE SA stays without it.
    pub(crate) fn on_installed(
        mut self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        sa: SaId,
        result: Result<(), IkeError>,
    ) -> State {
        if sa != self.child {
            return State::ExpectAuthInstalled(self);
        }
        if let Err(error) = result {
            if let Some(mut child) = self.established.children.remove(sa) {
                child.remove_both(turn);
            }
            let Self { established, id, auth, initial_contact, .. } = *self;
            return without_child(established, channel, turn, (id, &auth, initial_contact), Some(error));
        }
        let Self { mut established, child, id, answer, auth, initial_contact } = *self;
        let local_id = established.peer.local_id.clone();
        let sent = channel.respond(turn, ExchangeType::IkeAuth, id, |writer| {
            writer.id_r(local_id.id_type(), local_id.value());
            writer.auth(Auth { method: AuthMethod::SharedKey, data: auth.as_bytes() });
            answer.write_sa(writer);
            answer.write_ts(writer);
        });
        established.check(&sent);
        up(&mut established, channel, turn, initial_contact);
        if let Some(child) = established.children.get_mut(child) {
            child.inbound.state = crate::sa::DirectionState::Installed;
        }
        established.opened(channel, turn, child);
        State::Established(established)
    }

    /// It ends before the answer left.
    pub(crate) fn abandon(&mut self, turn: &mut Turn<'_>) -> Arc<str> {
        if let Some(mut child) = self.established.children.remove(self.child) {
            child.remove_both(turn);
        }
        self.established.peer.connection.name.clone()
    }
}

/// The IKE SA without a Child SA, which the peer may ask for again (RFC 7296 §1.2).
fn without_child(
    mut established: Box<Established>,
    channel: &mut Channel,
    turn: &mut Turn<'_>,
    (id, auth, initial_contact): (MessageId, &Secret, bool),
    error: Option<IkeError>,
) -> State {
    let local_id = established.peer.local_id.clone();
    let sent = channel.respond(turn, ExchangeType::IkeAuth, id, |writer| {
        writer.id_r(local_id.id_type(), local_id.value());
        writer.auth(Auth { method: AuthMethod::SharedKey, data: auth.as_bytes() });
        if let Some(error) = &error {
            write_refusal(writer, error);
        }
    });
    established.check(&sent);
    up(&mut established, channel, turn, initial_contact);
    if let Some(error) = error {
        established.tell_refused(channel, turn, error);
    }
    State::Established(established)
}

fn up(established: &mut Established, channel: &mut Channel, turn: &mut Turn<'_>, initial_contact: bool) {
    established.start_clocks(channel, turn);
    turn.event(Event::IkeUp(established.summary(channel)));
    turn.effect(Effect::Established { ike: channel.id, initial_contact });
}
