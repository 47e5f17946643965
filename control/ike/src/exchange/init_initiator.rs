//! IKE_SA_INIT as initiator, with COOKIE and INVALID_KE_PAYLOAD (RFC 7296 §1.2, §2.6, §2.7).
//!
//! Nothing here is authenticated. COOKIE and INVALID_KE_PAYLOAD are followed a few times, because the RFC
//! has no other way; any other notify is told to the operator and changes nothing: the real responder's
//! answer may still come.

use core::net::SocketAddr;
use std::sync::Arc;

use super::rekey_ike_initiator::new_spi;
use super::{auth_initiator, nat, nonce, required};
use crate::config::Connection;
use crate::crypto::{KeMethod, KeyExchange};
use crate::endpoint::{Effect, Turn};
use crate::error::IkeError;
use crate::event::{DownReason, Event};
use crate::message::{
    ExchangeType, IkeSpi, Ke, MessageId, Notify, NotifyType, Payloads, Protocol, Transform, Writer,
};
use crate::negotiate::{proposal, syntax};
use crate::sa::keys::{Contributions, Seed, grow};
use crate::sa::{Channel, IkeSa, Path, State};

/// We sent IKE_SA_INIT.
pub(crate) struct ExpectInitReply {
    pub(crate) connection: Arc<Connection>,
    /// The child that is wanted; `None` for all.
    pub(crate) child: Option<Arc<str>>,
    nonce: [u8; 32],
    /// Until the first reply that could be the right one uses it up.
    ke: Option<Box<dyn KeyExchange>>,
    method: KeMethod,
    cookie: Vec<u8>,
    request: Vec<u8>,
    /// Cookies and method changes followed so far.
    detours: u32,
}

/// What IKE_SA_INIT leaves for IKE_AUTH.
pub(crate) struct InitOutcome {
    pub(crate) connection: Arc<Connection>,
    pub(crate) child: Option<Arc<str>>,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    /// Both IKE_SA_INIT messages as they went over the wire: AUTH covers them.
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
}

/// Begins an IKE SA.
pub(crate) fn begin(
    turn: &mut Turn<'_>,
    connection: Arc<Connection>,
    child: Option<Arc<str>>,
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<IkeSa, IkeError> {
    let id = turn.next_ike_id();
    let spi = new_spi(turn);
    let mut path = Path::new(local, remote);
    path.forced = connection.encap;
    let mut channel = Channel::new(id, (spi, IkeSpi::ZERO), true, path, turn.now);
    let method = connection.proposals.iter().find_map(|proposal| proposal.ke_methods().next());
    let method = method.ok_or(IkeError::Internal { what: "a connection without key exchange method" })?;
    let provider = turn.shared.provider.clone();
    let ke = provider.start_ke(method, turn.rng)?;
    let nonce = nonce(turn.rng);
    let mut expect = ExpectInitReply {
        connection,
        child,
        nonce,
        ke: Some(ke),
        method,
        cookie: Vec::new(),
        request: Vec::new(),
        detours: 0,
    };
    expect.request = expect.write(&channel, turn)?;
    channel.requested(turn, MessageId(0), expect.request.clone());
    Ok(IkeSa::new(channel, State::ExpectInitReply(Box::new(expect))))
}

impl ExpectInitReply {
    /// The connection that is being brought up.
    pub(crate) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whom we want to reach.
    pub(crate) fn wanted(&self) -> (Arc<Connection>, Option<Arc<str>>) {
        (self.connection.clone(), self.child.clone())
    }

    fn write(&self, channel: &Channel, turn: &mut Turn<'_>) -> Result<Vec<u8>, IkeError> {
        let mut header = channel.header(ExchangeType::IkeSaInit, MessageId(0), false);
        header.spi_r = IkeSpi::ZERO;
        let mut writer = Writer::new(&header);
        if !self.cookie.is_empty() {
            writer.notify(Notify::new(NotifyType::Cookie, &self.cookie));
        }
        writer.sa(&proposal::offer(&self.connection.proposals, &[]));
        let ke = self.ke.as_ref().ok_or(IkeError::Internal { what: "a key exchange that is used up" })?;
        writer.ke(Ke { method: self.method.id(), public: ke.public() });
        writer.nonce(&self.nonce);
        let provider = turn.shared.provider.clone();
        let spis = (channel.spi_i, IkeSpi::ZERO);
        nat::write(&mut writer, &*provider, turn.rng, spis, &channel.path, self.connection.encap);
        writer.finish().map_err(|_| IkeError::Internal { what: "IKE_SA_INIT could not be written" })
    }

    /// A response to our request; `bytes` is the whole message.
    pub(crate) fn on_reply(
        mut self: Box<Self>,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        spi_r: IkeSpi,
        payloads: &Payloads<'_>,
        bytes: &[u8],
    ) -> State {
        if let Some(cookie) = payloads.notify(NotifyType::Cookie).filter(|_| payloads.sa.is_none()) {
            // One to 64 octets (RFC 7296 §2.6).
            if (1..=64).contains(&cookie.data.len()) && self.detour() {
                self.cookie = cookie.data.to_vec();
                self.ask_anew(channel, turn);
            }
            return State::ExpectInitReply(self);
        }
        if let Some(notify) = payloads.error() {
            if !self.change_method(channel, turn, notify) {
                self.tell(channel, turn, notify.kind);
            }
            return State::ExpectInitReply(self);
        }
        match self.accept(channel, turn, spi_r, payloads) {
            Ok(Accepted { peer_nonce, keys, suite, transforms }) => {
                channel.responded();
                let init = InitOutcome {
                    connection: self.connection,
                    child: self.child,
                    nonce_i: self.nonce.to_vec(),
                    nonce_r: peer_nonce,
                    request: self.request,
                    response: bytes.to_vec(),
                };
                auth_initiator::begin(channel, turn, init, keys, suite, describe(&transforms))
            }
            Err((error, expect_again)) => {
                tell(channel, turn, &self.connection.name, error);
                if expect_again {
                    return State::ExpectInitReply(self);
                }
                failed(channel, turn, self.connection, self.child);
                State::Gone
            }
        }
    }

    fn detour(&mut self) -> bool {
        self.detours += 1;
        self.detours <= DETOURS_MAX
    }

    fn ask_anew(&mut self, channel: &mut Channel, turn: &mut Turn<'_>) {
        if let Ok(request) = self.write(channel, turn) {
            self.request.clone_from(&request);
            channel.ask_anew(turn, request);
        }
    }

    /// Takes another method of ours that the responder wants.
    fn change_method(&mut self, channel: &mut Channel, turn: &mut Turn<'_>, notify: Notify<'_>) -> bool {
        if notify.kind != NotifyType::InvalidKePayload {
            return false;
        }
        let wanted = notify.data_u16().and_then(KeMethod::from_id);
        let Some(method) = wanted.filter(|&method| {
            method != self.method && proposal::offers_ke(&self.connection.proposals, method)
        }) else {
            return false;
        };
        if !self.detour() {
            return true;
        }
        let provider = turn.shared.provider.clone();
        if let Ok(ke) = provider.start_ke(method, turn.rng) {
            (self.ke, self.method) = (Some(ke), method);
            self.ask_anew(channel, turn);
        }
        true
    }

    fn tell(&self, channel: &Channel, turn: &mut Turn<'_>, notify: NotifyType) {
        let error = IkeError::PeerRefused {
            notify,
            offered: syntax::describe(&self.connection.proposals),
            key: format!("connection.{}.proposals", self.connection.name),
        };
        tell(channel, turn, &self.connection.name, error);
    }

    /// Grows the keys. The flag beside an error: whether a better reply may still come.
    fn accept(
        &mut self,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
        spi_r: IkeSpi,
        payloads: &Payloads<'_>,
    ) -> Result<Accepted, (IkeError, bool)> {
        let unfit = |error| (error, true);
        if spi_r.is_zero() {
            return Err(unfit(IkeError::PeerMisbehaved { what: "an SPI of zero" }));
        }
        let sa = required(payloads.sa.as_ref(), "a reply without SA").map_err(unfit)?;
        let peer_nonce = required(payloads.nonce, "a reply without nonce").map_err(unfit)?;
        let theirs = required(payloads.ke, "a reply without key exchange").map_err(unfit)?;
        let chosen = proposal::accept_ike(&self.connection.proposals, sa, 0).ok_or_else(|| {
            unfit(IkeError::PeerMisbehaved { what: "it chose an IKE proposal that was not offered" })
        })?;
        let method = self.method;
        if chosen.agreement.ke != method
            || theirs.method != method.id()
            || theirs.public.len() != method.public_len()
        {
            let what = "a reply whose key exchange does not fit its proposal";
            return Err(unfit(IkeError::PeerMisbehaved { what }));
        }
        // The private key is used up by the first reply that could be the right one; a forged one costs
        // us this attempt, and the next one begins anew.
        let provider = turn.shared.provider.clone();
        let used_up = (IkeError::Internal { what: "a key exchange that is used up" }, false);
        let ke = self.ke.take().ok_or(used_up)?;
        let shared = ke.finish(theirs.public).map_err(|error| (error.into(), false))?;
        channel.spi_r = spi_r;
        let from = Contributions {
            shared: &shared,
            nonce_i: &self.nonce,
            nonce_r: peer_nonce,
            spi_i: channel.spi_i,
            spi_r,
        };
        let mut log = None;
        let mut keep = |keys| log = Some(keys);
        let wanted = turn.shared.config.log_keys;
        let (keys, protect) = grow(
            &*provider,
            chosen.agreement,
            Seed::Initial,
            from,
            true,
            if wanted { Some(&mut keep) } else { None },
        )
        .map_err(|error| (error.into(), false))?;
        if let Some(keys) = log {
            turn.event(Event::Keys(keys));
        }
        channel.protect = Some(protect);
        let spis = (channel.spi_i, spi_r);
        let (nat_local, nat_remote) =
            nat::detect(&*provider, payloads, spis, channel.path.local, channel.path.remote);
        channel.path.nat_local = nat_local;
        channel.path.nat_remote = nat_remote;
        if nat_local || nat_remote || channel.path.forced {
            channel.path.float(turn.shared.config.ports);
        }
        Ok(Accepted {
            peer_nonce: peer_nonce.to_vec(),
            keys,
            suite: chosen.agreement,
            transforms: chosen.transforms,
        })
    }
}

struct Accepted {
    peer_nonce: Vec<u8>,
    keys: crate::sa::Keys,
    suite: crate::negotiate::IkeAgreement,
    transforms: Vec<Transform>,
}

fn tell(channel: &Channel, turn: &mut Turn<'_>, connection: &Arc<str>, error: IkeError) {
    turn.event(Event::Refused {
        ike: Some(channel.id),
        connection: Some(connection.clone()),
        remote: channel.path.remote,
        error,
        authenticated: false,
    });
}

/// The attempt is over; the endpoint may make another one.
pub(crate) fn failed(
    channel: &Channel,
    turn: &mut Turn<'_>,
    connection: Arc<Connection>,
    child: Option<Arc<str>>,
) {
    turn.event(Event::IkeDown {
        ike: channel.id,
        connection: Some(connection.name.clone()),
        remote: channel.path.remote,
        reason: DownReason::Failed,
    });
    turn.effect(Effect::Again { connection, child, failed: true });
}

/// The chosen transforms as swanctl users write them.
pub(crate) fn describe(transforms: &[Transform]) -> String {
    syntax::describe_transforms(Protocol::Ike, transforms)
}

/// Cookies and method changes that are followed in one attempt: a responder under load may rotate its
/// secret once, and more is a stranger's game.
const DETOURS_MAX: u32 = 5;
