//! One IKE SA: a line that carries messages, and a state that says which message may come.
//!
//! States consume themselves: `ExpectInitReply` becomes `ExpectAuthReply` becomes [`Established`]. What is
//! established keeps at most one request of its own and one of the peer's in work, each of them again a
//! typed state of its exchange.

mod channel;
mod child_life;
mod children;
mod collision;
mod established;
mod inheritance;
pub(crate) mod keys;
mod liveness;
mod protect;
mod tasks;
mod timer;
mod window;

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

pub(crate) use channel::{Channel, Path};
pub(crate) use child_life::GIVE_UP_AFTER;
pub(crate) use children::{ChildSa, DirectionSa, DirectionState, Phase};
pub(crate) use collision::{Lowest, lowest_nonce};
pub(crate) use established::{Established, LAST_WORDS, Peer};
pub(crate) use inheritance::InheritedChildren;
pub(crate) use keys::Keys;
pub(crate) use tasks::{PacketPair, Task};
pub(crate) use timer::Timer;
pub(crate) use window::{Judged, Window};

use crate::endpoint::{Effect, Entry, Identities, Stranger, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::exchange::{
    auth_initiator::ExpectAuthReply,
    auth_responder::{ExpectAuth, ExpectAuthInstalled},
    informational_initiator::ExpectFarewellReply,
    init_initiator::ExpectInitReply,
};
use crate::identity::Identity;
use crate::message::{Encrypted, ExchangeType, Extent, Header, MessageId, OpenError, Payloads};
use crate::time::Instant;

/// Our name for an IKE SA, never given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSaId(pub u64);

impl fmt::Display for IkeSaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One IKE SA.
pub(crate) struct IkeSa {
    pub(crate) channel: Channel,
    pub(crate) state: State,
    pub(crate) indexed: Indexed,
}

/// What the endpoint's indexes have an IKE SA under.
#[derive(Debug, Default)]
pub(crate) struct Indexed {
    pub(crate) deadline: Option<Instant>,
    /// Counted among those that only repeat their last answer.
    pub(crate) closed: bool,
    pub(crate) entry: Entry,
}

/// Which message may come.
pub(crate) enum State {
    /// We sent IKE_SA_INIT.
    ExpectInitReply(Box<ExpectInitReply>),
    /// We sent IKE_AUTH.
    ExpectAuthReply(Box<ExpectAuthReply>),
    /// We answered IKE_SA_INIT.
    ExpectAuth(Box<ExpectAuth>),
    /// The peer is authentic; the data plane installs its first Child SA.
    ExpectAuthInstalled(Box<ExpectAuthInstalled>),
    /// Both are authentic.
    Established(Box<Established>),
    /// The handshake failed on our side, and the peer was told.
    ExpectFarewellReply(ExpectFarewellReply),
    /// It is over; the last answer is repeated for a while to a peer that did not get it.
    Closed,
    /// It is over, and nobody needs to know.
    Gone,
}

impl State {
    /// It is over: keeps the line for [`REPEAT_LAST_ANSWER`].
    pub(crate) fn closed(channel: &mut Channel, now: Instant) -> Self {
        channel.timers = timer::Timers::default();
        channel.timers.set(Timer::HalfOpen, now + REPEAT_LAST_ANSWER);
        Self::Closed
    }
}

/// A peer that missed our last answer repeats its request within this time.
const REPEAT_LAST_ANSWER: Duration = Duration::from_secs(10);

/// An authenticated message.
#[derive(Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) exchange: ExchangeType,
    pub(crate) id: MessageId,
    pub(crate) payloads: &'a Payloads<'a>,
}

impl IkeSa {
    pub(crate) fn new(channel: Channel, state: State) -> Self {
        Self { channel, state, indexed: Indexed::default() }
    }

    /// When it needs a turn.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Established(established) => established.deadline(),
            State::ExpectAuthInstalled(waiting) => waiting.deadline(),
            _ => None,
        };
        [self.channel.timers.next(), state].into_iter().flatten().min()
    }

    /// The connection that it is of, once that is known, and who is at its ends, once the peer has
    /// authenticated.
    fn belongs_to(&self) -> (Option<&Arc<str>>, Option<(&Identity, &Identity)>) {
        match &self.state {
            State::ExpectInitReply(expect) => (Some(&expect.connection().name), None),
            State::ExpectAuthReply(expect) => (Some(&expect.connection().name), None),
            State::ExpectAuthInstalled(waiting) => (Some(waiting.connection()), None),
            State::Established(established) => {
                let peer = &established.peer;
                (Some(&peer.connection.name), Some((&peer.remote_id, &peer.local_id)))
            }
            State::ExpectAuth(_) | State::ExpectFarewellReply(_) | State::Closed | State::Gone => {
                (None, None)
            }
        }
    }

    /// What the endpoint's directory is to have it under.
    pub(crate) fn entry(&self) -> Entry {
        let (connection, ends) = self.belongs_to();
        let identities =
            ends.map(|(remote, local)| Identities { remote: remote.clone(), local: local.clone() });
        Entry { connection: connection.cloned(), identities }
    }

    /// Whether the endpoint's directory has it so.
    pub(crate) fn is_entered_rightly(&self) -> bool {
        let Entry { connection, identities } = &self.indexed.entry;
        let ends = identities.as_ref().map(|ends| (&ends.remote, &ends.local));
        (connection.as_ref(), ends) == self.belongs_to()
    }

    pub(crate) const fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    pub(crate) const fn established(&self) -> Option<&Established> {
        match &self.state {
            State::Established(established) => Some(established),
            _ => None,
        }
    }

    /// The line and the established state, for what the endpoint does from outside.
    pub(crate) const fn established_mut(&mut self) -> Option<(&mut Channel, &mut Established)> {
        match &mut self.state {
            State::Established(established) => Some((&mut self.channel, established)),
            _ => None,
        }
    }

    /// The stranger to be discounted, once, when the SA is no longer half open. A handshake that failed is not: who
    /// fails again and again may not keep others of its address out.
    pub(crate) fn take_no_longer_half_open(&mut self) -> Option<Stranger> {
        let half_open = matches!(self.state, State::ExpectAuth(_) | State::ExpectAuthInstalled(_));
        if half_open { None } else { self.channel.half_open.take() }
    }

    /// An encrypted message with our SPI. What does not authenticate changes nothing, and a request that has no place
    /// yet is judged before its message id is used up: the peer repeats it, and it is served then (RFC 7296 §2.1,
    /// §2.2).
    pub(crate) fn on_message(
        &mut self,
        turn: &mut Turn<'_>,
        header: &Header,
        encrypted: &Encrypted,
        bytes: &mut [u8],
        (local, remote): (SocketAddr, SocketAddr),
    ) {
        // We have not announced fragmentation, so no fragment is meant for us (RFC 7383 §2.3).
        if encrypted.extent != Extent::Whole {
            return;
        }
        let response = header.flags.response;
        let acceptable = if response {
            self.channel.window.awaits(header.id)
        } else {
            self.channel.window.judge(header.id) != Judged::Outside
        };
        if !acceptable {
            return;
        }
        let Some(protect) = &self.channel.protect else { return };
        let opened = match protect.open(encrypted, bytes) {
            Ok(opened) => Payloads::parse(encrypted.first, opened),
            Err(OpenError::Crypto(_)) => return,
            Err(OpenError::Malformed(malformed)) => Err(malformed),
        };
        // From here on the message is authentic.
        if response {
            self.channel.responded();
        } else {
            if let Judged::Repeated(answer) = self.channel.window.judge(header.id) {
                if let Some(answer) = answer.map(<[u8]>::to_vec) {
                    let transmit =
                        crate::endpoint::Transmit { local, remote, bytes: answer, keepalive: false };
                    turn.transmit(transmit);
                }
                return;
            }
            if !self.serves(header.exchange) {
                return;
            }
            self.channel.window.accept(header.id);
            self.channel.reply_to = (local, remote);
        }
        self.follow(turn, local, remote);
        // An answer shows that our request arrived; a request from elsewhere shows nothing about the path.
        if response || (self.channel.path.local, self.channel.path.remote) == (local, remote) {
            self.channel.heard = turn.now;
        } else {
            self.on_heard_elsewhere(turn, local);
        }
        let payloads = match opened {
            Ok(payloads) => payloads,
            Err(malformed) => return self.on_malformed(turn, header, malformed.into()),
        };
        let incoming = Incoming { exchange: header.exchange, id: header.id, payloads: &payloads };
        let state = core::mem::replace(&mut self.state, State::Gone);
        self.state = if response {
            self.on_response(turn, state, incoming)
        } else {
            self.on_request(turn, state, incoming)
        };
        self.after(turn);
    }

    /// Whether a request of this exchange type is answered in the present state. What the peer may rightly send later
    /// waits for its repetition: a request that overtakes our answer to IKE_AUTH, or that answer its own IKE_AUTH.
    const fn serves(&self, exchange: ExchangeType) -> bool {
        match &self.state {
            State::Established(_) => true,
            State::ExpectAuth(_) => {
                !matches!(exchange, ExchangeType::CreateChildSa | ExchangeType::Informational)
            }
            State::ExpectInitReply(_)
            | State::ExpectAuthReply(_)
            | State::ExpectAuthInstalled(_)
            | State::ExpectFarewellReply(_)
            | State::Closed
            | State::Gone => false,
        }
    }

    /// A request that [`Self::serves`] lets in.
    fn on_request(&mut self, turn: &mut Turn<'_>, state: State, incoming: Incoming<'_>) -> State {
        let channel = &mut self.channel;
        match state {
            State::ExpectAuth(expect) => expect.on_request(channel, turn, incoming),
            State::Established(mut established) => {
                established.on_request(channel, turn, incoming);
                State::Established(established)
            }
            state => state,
        }
    }

    fn on_response(&mut self, turn: &mut Turn<'_>, state: State, incoming: Incoming<'_>) -> State {
        let channel = &mut self.channel;
        match state {
            State::ExpectAuthReply(expect) => expect.on_reply(channel, turn, incoming),
            State::Established(mut established) => {
                established.on_response(channel, turn, incoming);
                State::Established(established)
            }
            State::ExpectFarewellReply(_) => State::Gone,
            state => state,
        }
    }

    /// An authentic message that does not parse (RFC 7296 §2.21.3): an unknown critical payload refuses its
    /// request; bad syntax ends the IKE SA.
    fn on_malformed(&mut self, turn: &mut Turn<'_>, header: &Header, error: IkeError) {
        let fatal = header.flags.response
            || error.notify() != crate::message::NotifyType::UnsupportedCriticalPayload
            || !matches!(self.state, State::Established(_));
        let mut sent = Ok(());
        if !header.flags.response {
            sent = self.channel.respond(turn, header.exchange, header.id, |writer| {
                crate::exchange::write_refusal(writer, &error);
            });
        }
        let ike = self.channel.id;
        let connection = self.established().map(|established| established.peer.connection.name.clone());
        let remote = self.channel.path.remote;
        turn.event(Event::Refused { ike: Some(ike), connection, remote, error, authenticated: true });
        if sent.is_err() {
            self.close(turn, DownReason::Failed);
            return;
        }
        if fatal {
            self.close(turn, DownReason::Failed);
            self.state = State::closed(&mut self.channel, turn.now);
        }
    }

    /// Authentic, but not from where the path leads to, and not to be followed (RFC 7296 §2.23): whether the path
    /// still lives has to be found out (§2.4). From port 500 after the move to 4500 it says nothing new.
    fn on_heard_elsewhere(&mut self, turn: &mut Turn<'_>, local: SocketAddr) {
        let floated = local.port() != self.channel.path.local.port();
        if let (State::Established(established), false) = (&mut self.state, floated) {
            established.doubt_path(&mut self.channel, turn);
        }
    }

    /// Follows a peer whose NAT gave it another address (RFC 7296 §2.23), and the initiator to port 4500. Never back to
    /// port 500, where no ESP in UDP goes.
    fn follow(&mut self, turn: &mut Turn<'_>, local: SocketAddr, remote: SocketAddr) {
        let path = &mut self.channel.path;
        if (path.local, path.remote) == (local, remote) {
            return;
        }
        let handshake = matches!(self.state, State::ExpectAuth(_));
        if !(handshake || path.nat_remote && !path.nat_local) {
            return;
        }
        let ports = turn.shared.config.ports;
        if path.local.port() == ports.nat_t && local.port() != ports.nat_t {
            return;
        }
        let old = path.remote;
        path.local = local;
        path.remote = remote;
        if let State::Established(established) = &mut self.state {
            established.peer_moved(&mut self.channel, turn, old);
        }
    }

    /// Does what is due.
    pub(crate) fn on_timeout(&mut self, turn: &mut Turn<'_>) {
        while let Some(timer) = self.channel.timers.pop(turn.now) {
            match timer {
                Timer::Retransmit => {
                    if !self.channel.repeat(turn) {
                        self.on_unreachable(turn);
                    }
                }
                Timer::HalfOpen => self.close(turn, DownReason::Failed),
                other => {
                    if let State::Established(established) = &mut self.state {
                        established.on_timer(&mut self.channel, turn, other);
                    }
                }
            }
        }
        let state = core::mem::replace(&mut self.state, State::Gone);
        self.state = match state {
            State::Established(mut established) => {
                established.on_timeout(&mut self.channel, turn);
                State::Established(established)
            }
            State::ExpectAuthInstalled(waiting) => waiting.on_timeout(&mut self.channel, turn),
            state => state,
        };
        self.after(turn);
    }

    /// The data plane has installed one of our SAs, or has not.
    pub(crate) fn on_installed(
        &mut self,
        turn: &mut Turn<'_>,
        sa: pollux_abi::SaId,
        result: Result<(), IkeError>,
    ) {
        let state = core::mem::replace(&mut self.state, State::Gone);
        self.state = match state {
            State::Established(mut established) => {
                established.on_installed(&mut self.channel, turn, sa, result);
                State::Established(established)
            }
            State::ExpectAuthInstalled(waiting) => waiting.on_installed(&mut self.channel, turn, sa, result),
            state => state,
        };
        self.after(turn);
    }

    /// Runs tasks, and closes an IKE SA whose established state is finished.
    pub(crate) fn after(&mut self, turn: &mut Turn<'_>) {
        let State::Established(established) = &mut self.state else { return };
        established.run_tasks(&mut self.channel, turn);
        match established.finished {
            None => {}
            Some(reason) => self.close(turn, reason),
        }
    }

    /// Nobody answers any more.
    fn on_unreachable(&mut self, turn: &mut Turn<'_>) {
        self.channel.window.responded();
        // Of a replaced IKE SA it was the answer to a DELETE that got lost, and the peer may not remember it.
        let replaced = self.established().is_some_and(|established| established.successor.is_some());
        self.close(turn, if replaced { DownReason::Replaced } else { DownReason::PeerDead });
    }

    /// Ends it without a word to the peer: Child SAs leave the data plane, the operator is told.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>, reason: DownReason) {
        let channel = &mut self.channel;
        let connection = match core::mem::replace(&mut self.state, State::Gone) {
            State::Closed | State::Gone | State::ExpectFarewellReply(_) | State::ExpectAuth(_) => return,
            State::ExpectInitReply(expect) => {
                let (connection, child) = expect.wanted();
                turn.effect(Effect::Again { connection: connection.clone(), child, failed: true });
                Some(connection.name.clone())
            }
            State::ExpectAuthReply(mut expect) => {
                let (connection, child) = expect.abandon(turn);
                turn.effect(Effect::Again { connection: connection.clone(), child, failed: true });
                Some(connection.name.clone())
            }
            State::ExpectAuthInstalled(mut waiting) => Some(waiting.abandon(turn)),
            State::Established(mut established) => {
                established.abandon(channel, turn, reason);
                if established.answered_last {
                    self.state = State::closed(channel, turn.now);
                }
                Some(established.peer.connection.name.clone())
            }
        };
        turn.event(Event::IkeDown { ike: channel.id, connection, remote: channel.path.remote, reason });
    }
}
